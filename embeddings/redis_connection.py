"""One connection to Redis: commands in one write, replies in one read, every error by our own name.

A server that answers and does not do what it is asked either will later (`StoreUnavailable`: ask again) or never will
(`StoreRefused`: the process ends, and a person changes something). What is in neither list never will.
"""

import re
import ssl
import threading
from collections import Counter
from collections.abc import Sequence
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

import hiredis
from redis import ConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, InvalidResponse, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeout
from redis.retry import Retry

from embeddings.errors import EmbeddingsError, StoreRefused, StoreUnavailable
from embeddings.patience import Patience

#: Bytes, strings and whole numbers.
Command = Sequence[object]
FAILURES = ("timeout", "connection", "replica", "full", "busy", "refused")
"""Why an exchange failed: no answer in time, no connection, a replica, no memory, not now, never."""
_PASSES = {
    "READONLY": "it is a replica and takes no writes: name its primary, or an address that follows the primary",
    "MASTERDOWN": "it is a replica that has lost its primary",
    "OOM": "its memory is full: raise maxmemory",
    "MISCONF": "it cannot save to its disk and takes no writes",
    "NOREPLICAS": "it has too few replicas and takes no writes",
    "BUSY|UNKILLABLE": "it is busy with a script",
    "NOSCRIPT": "it has lost the script",
}
_KINDS = {"READONLY": "replica", "MASTERDOWN": "replica", "OOM": "full"}
_RIGHTS = "redis.username may not do what is needed: `marquee doctor --acl` lists it"
_CLUSTER = "it is a cluster, which is not supported yet: name a server that is part of none"
_REFUSES = {
    "NOAUTH": "it wants a password: set redis.password, and redis.username unless it is the default user's",
    "WRONGPASS|AUTH": "it does not know this user or password: check redis.username and redis.password",
    "NOPERM|ACL failure|executing the script can't": _RIGHTS,
    "unknown command": "its owner took a command away that is needed: `marquee doctor --acl` lists them",
    "MOVED|ASK|CROSSSLOT|CLUSTERDOWN|TRYAGAIN|cluster mode": _CLUSTER,
    "DB index": "it has no database of that number, as a cluster has only one: change the end of redis.url",
    "DENIED": "it takes no clients from elsewhere (protected mode)",
    "": "it refuses what is asked",
}
#: How often an address may have moved: it led to a replica, or no longer does. Older connections are made anew, and
#: the name looked up again.
_demotions: Counter[str] = Counter()


class Watch:
    """Hears of a connection: when it was opened, how long exchanges took, why some failed. Any thread calls."""

    def connected(self) -> None:
        """A connection was opened."""

    def exchanged(self, seconds: float) -> None:
        """An exchange ended, with an answer or without."""

    def failed(self, kind: str) -> None:
        """It failed, of `FAILURES`."""


UNWATCHED = Watch()


class RedisLine:
    """A dedicated connection, opened at first use and again after a failure. Exchanges of several threads queue up."""

    def __init__(
        self, url: str, *, timeout_s: float, watch: Watch = UNWATCHED, patience: Patience | None = None
    ) -> None:
        """Nothing connects yet.

        Args:
            url: `redis://`, `rediss://` or `unix://`.
            timeout_s: for connecting and for each read and write.
            watch: hears of what becomes of exchanges.
            patience: says instead how long each exchange may take; other connections may have the same.
        """
        self._watch, self._patience = watch, patience or Patience(timeout_s, lets_alone=False)
        self._lock = threading.Lock()
        parts = urlsplit(url)
        self._where = parts.netloc.rpartition("@")[2] or parts.path
        self._demotions, self._was_replica = 0, False
        pool = ConnectionPool.from_url(
            url,
            protocol=2,
            driver_info=None,
            socket_read_size=1 << 20,
            retry=Retry(NoBackoff(), 0),
        )
        self._connection: Any = pool.make_connection()  # redis-py leaves most of its methods untyped

    def exchange(self, *commands: Command) -> list[object]:
        """Send commands in one write; the replies in order. EXEC's nil is None.

        Raises:
            StoreUnavailable: no reply, or one that passes; whether the commands took effect is not known. Or nothing
                was sent, as the server is let alone.
            StoreRefused: a reply that retrying will not mend.
        """
        with self._lock:
            self._wait_at_most(self._patience.begin())
            began_s = perf_counter()
            try:
                if self._demotions != _demotions[self._where]:
                    self._connection.disconnect()
                if not self._connection.is_connected:
                    self._demotions = _demotions[self._where]
                    self._connection.connect()
                    self._watch.connected()
                replies = self._exchange(commands)
            except (RedisError, OSError) as error:
                self._connection.disconnect()  # what comes late is no answer to what is asked next
                raise self._ours(error, perf_counter() - began_s) from error
            finally:
                self._watch.exchanged(perf_counter() - began_s)
        for reply in replies:
            self._refuse(reply)
        if self._was_replica:  # the address may have moved since: the others follow
            self._was_replica = False
            _demotions[self._where] += 1
            self._demotions = _demotions[self._where]
        return replies

    def close(self) -> None:
        """Close the connection; the next exchange opens another."""
        with self._lock:
            self._connection.disconnect()

    def _wait_at_most(self, seconds: float) -> None:
        connection = self._connection
        if connection.socket_timeout != seconds:
            connection.socket_timeout = connection.socket_connect_timeout = seconds
            if connection.is_connected:
                connection._sock.settimeout(seconds)

    def _exchange(self, commands: Sequence[Command]) -> list[object]:
        packed = b"".join([hiredis.pack_command(tuple(command)) for command in commands])  # type: ignore[arg-type]
        self._connection.send_packed_command([packed], check_health=False)
        return [self._read() for _ in commands]

    def _read(self) -> object:
        try:
            return self._connection.read_response(disconnect_on_error=False)
        except ResponseError as error:
            return error

    def _refuse(self, reply: object) -> None:
        """Raise the error that a reply is, or that a transaction's reply holds."""
        for part in reply if isinstance(reply, list) and len(reply) < 16 else (reply,):
            if isinstance(part, ResponseError):
                raise self._ours(part) from part

    def _ours(self, error: Exception, waited_s: float = 0.0) -> EmbeddingsError:
        said = f"{getattr(error, 'status_code', None) or ''} {error}".strip()
        text = " ".join(said.split())[:200] or type(error).__name__
        if isinstance(error, (ResponseError, AuthenticationError)):
            return self._judged(text)
        if isinstance(error, InvalidResponse):
            text = "what answers there does not speak Redis' protocol"
        late = isinstance(error, RedisTimeout | TimeoutError)
        if late:
            self._patience.waited_in_vain(waited_s)
        refused = isinstance(error.__context__, ssl.SSLCertVerificationError)
        self._watch.failed("refused" if refused else "timeout" if late else "connection")
        if refused:
            return StoreRefused(f"Redis at {self._where}: its certificate is refused ({text})")
        return StoreUnavailable(f"Redis at {self._where}: {text}")

    def _judged(self, text: str) -> EmbeddingsError:
        """What an error reply means; scripts hide its code in the middle of a plain one."""
        for marks, kind in ((_PASSES, StoreUnavailable), (_REFUSES, StoreRefused)):
            for mark, meaning in marks.items():
                if re.search(rf"\b({mark})\b" if mark else "", text):
                    if mark != "NOSCRIPT":  # whoever runs it loads it, and asks again
                        self._watch.failed("refused" if kind is StoreRefused else _KINDS.get(mark, "busy"))
                    if mark == "READONLY":
                        self._was_replica = True
                        _demotions[self._where] += 1
                    return kind(f"Redis at {self._where}: {meaning} ({text})")
        raise AssertionError("the last mark is in every text")
