"""One connection to Redis: commands in one write, replies in one read, every transient error by our own name."""

import threading
from collections.abc import Sequence
from typing import Any

import hiredis
from redis import ConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    ClusterDownError,
    ConnectionError,
    ExecAbortError,
    MasterDownError,
    MovedError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,
    TryAgainError,
)
from redis.retry import Retry

from embeddings.errors import StoreUnavailable

#: Bytes, strings and whole numbers.
Command = Sequence[object]
_TRANSIENT = (
    *(ConnectionError, TimeoutError, OSError, ReadOnlyError, NoScriptError, OutOfMemoryError, ExecAbortError),
    *(MovedError, AskError, ClusterDownError, MasterDownError, TryAgainError),
)
#: Codes without a class of their own in redis-py, or hidden in a script's plain error (redis-py #3443).
_TRANSIENT_CODES = ("BUSY", "MISCONF", "NOREPLICAS", "READONLY", "OOM", "LOADING", "CLUSTERDOWN", "UNKILLABLE")


class RedisLine:
    """A dedicated connection, opened at first use and again after a failure. Exchanges of several threads queue up."""

    def __init__(self, url: str, *, timeout_s: float) -> None:
        """Args: url: `redis://`, `rediss://` or `unix://`. timeout_s: for connecting and for each read and write."""
        self._lock = threading.Lock()
        pool = ConnectionPool.from_url(
            url,
            protocol=2,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            socket_read_size=1 << 20,
            retry=Retry(NoBackoff(), 0),
        )
        self._connection: Any = pool.make_connection()  # redis-py leaves most of its methods untyped

    def exchange(self, *commands: Command) -> list[object]:
        """Send commands in one write; the replies in order. EXEC's nil is None.

        Raises:
            StoreUnavailable: no reply, or a transient one; whether the commands took effect is not known.
            redis.exceptions.ResponseError: a reply that retrying will not mend: a bug, or missing rights.
        """
        with self._lock:
            try:
                if not self._connection.is_connected:
                    self._connection.connect()
                replies = self._exchange(commands)
            except (RedisError, OSError) as error:
                self._connection.disconnect()
                raise _ours(error) from error
        for reply in replies:
            _refuse(reply)
        return replies

    def close(self) -> None:
        """Close the connection; the next exchange opens another."""
        with self._lock:
            self._connection.disconnect()

    def _exchange(self, commands: Sequence[Command]) -> list[object]:
        packed = b"".join([hiredis.pack_command(tuple(command)) for command in commands])  # type: ignore[arg-type]
        self._connection.send_packed_command([packed], check_health=False)
        return [self._read() for _ in commands]

    def _read(self) -> object:
        try:
            return self._connection.read_response(disconnect_on_error=False)
        except ResponseError as error:
            return error


def _refuse(reply: object) -> None:
    """Raise the error that a reply is, or that a transaction's reply holds."""
    for part in reply if isinstance(reply, list) and len(reply) < 16 else (reply,):
        if isinstance(part, ResponseError):
            raise _ours(part) from part


def _ours(error: Exception) -> Exception:
    code = getattr(error, "status_code", None)
    if isinstance(error, _TRANSIENT) or code in _TRANSIENT_CODES or any(c in str(error) for c in _TRANSIENT_CODES):
        return StoreUnavailable(f"Redis: {type(error).__name__}: {error}")
    return error
