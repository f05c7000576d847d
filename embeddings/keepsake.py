"""A few bytes that a worker leaves to those that come after it, such as when people come: the last one stands.

>>> kept = MemoryKeepsake()
>>> kept.load(), kept.keep(b"evening"), kept.load()
(None, None, b'evening')
"""

from typing import Protocol

from embeddings.redis_connection import RedisLine

COMMANDS = ("get", "set")
"""What is asked of Redis."""
KEPT_MS = 90 * 86_400_000


class Keepsake(Protocol):
    """One value. Both calls are one round trip and may block.

    Raises:
        StoreUnavailable: no answer; nothing depends on it, try later.
        StoreRefused: it never will.
    """

    def load(self) -> bytes | None:
        """What was kept last; None where nothing was, or it is long ago."""

    def keep(self, value: bytes) -> None:
        """Keep this in its place."""


class MemoryKeepsake(Keepsake):
    """`Keepsake` in this process."""

    def __init__(self) -> None:
        """Nothing was kept yet."""
        self._value: bytes | None = None

    def load(self) -> bytes | None:
        """See `Keepsake.load`."""
        return self._value

    def keep(self, value: bytes) -> None:
        """See `Keepsake.keep`."""
        self._value = value


class RedisKeepsake(Keepsake):
    """`Keepsake` in Redis or Valkey, under one key, for three months after it was kept last, or as said."""

    def __init__(
        self, url: str, name: str, *, prefix: str = "mq", timeout_s: float = 2.0, kept_ms: int = KEPT_MS
    ) -> None:
        """Nothing connects before the first call.

        Args:
            url: where the server is.
            name: what it is.
            prefix: first part of the key.
            timeout_s: for each read and write.
            kept_ms: for how long after it was kept last.
        """
        self._kept_ms = str(kept_ms).encode()
        self._line, self._key = RedisLine(url, timeout_s=timeout_s), f"{prefix}:kept:{name}".encode()

    def load(self) -> bytes | None:
        """See `Keepsake.load`."""
        (found,) = self._line.exchange((b"GET", self._key))
        return found if isinstance(found, bytes) else None

    def keep(self, value: bytes) -> None:
        """See `Keepsake.keep`."""
        self._line.exchange((b"SET", self._key, value, b"PX", self._kept_ms))
