"""How long those who have to answer wait for Redis: no longer than they may, and not again at once for a silent one."""

from collections.abc import Callable
from time import monotonic

from embeddings.errors import StoreUnavailable

_LEAST_S = 0.1
"""Whoever may wait for less waits so long: a healthy server is asked in a tenth of it."""
_ALONE = 4
"""So many times longer than it kept somebody waiting in vain a server is let alone: a fifth of the time is lost."""


class Patience:
    """How long exchanges may take that begin now; for the connections of one who answers.

    One of them that waits in vain has them all refused at once for a while. Then one waits again, and where that gets
    an answer all do.
    """

    def __init__(self, longest_s: float, *, lets_alone: bool = True, now_s: Callable[[], float] = monotonic) -> None:
        """Exchanges may take `longest_s`; unless it `lets_alone`, a silent server is waited for each time."""
        self._longest_s, self._may_s, self._now_s = longest_s, longest_s, now_s
        self._alone, self._alone_until_s = _ALONE if lets_alone else 0, float("-inf")

    def within(self, seconds: float) -> None:
        """From now on wait for so long, but never longer than at most, nor less than a healthy server takes."""
        self._may_s = min(max(seconds, _LEAST_S), self._longest_s)

    def begin(self) -> float:
        """How many seconds an exchange may take that begins now.

        Raises:
            StoreUnavailable: the server is let alone.
        """
        if self._now_s() < self._alone_until_s:
            raise StoreUnavailable("Redis did not answer a moment ago")
        return self._may_s

    def waited_in_vain(self, seconds: float) -> None:
        """An exchange took so long and brought nothing."""
        self._alone_until_s = self._now_s() + self._alone * seconds
