"""What keeps a process out of the way of requests, and what is only said: a store that is away is away for all.

A process that has never been ready waits for the store, the brokers and the topics that everybody reads: whoever rolls
out a release sees that it cannot reach them. One that has been ready would be missed: if all of them were taken out of
a balancer at once, nobody would get what they can still give, which is what is popular. So later these are notes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from streams.process.health import Check, examine

SHARED = frozenset({"store", "control"})
"""Checks of what every process of an installation shares."""
WORK = "work"
"""The check of whether the work moves: it may wait for what is shared."""


@dataclass(slots=True, kw_only=True)
class Readiness:
    """Remembers whether a process was ready; `look` is called once a second, in the loop that checks are asked in.

    Attributes:
        checks: all that readiness asks, those of the start included.
        away: whether something shared is away.
    """

    checks: Mapping[str, Check]
    away: Callable[[], bool]
    _was_ready: bool = field(init=False, default=False)
    _waits: bool = field(init=False, default=False)
    """Whether the work has been held up ever since something was away."""

    def look(self) -> None:
        """Note whether it is ready, and whether the work waits for others."""
        self._waits = self.away() or (self._waits and examine(self.checks).get(WORK) is not None)
        self._was_ready = self._was_ready or not any(examine(self.counting()).values())

    def counting(self) -> dict[str, Check]:
        """The checks, passed where what they say is but a note."""
        return {name: self._counts(name, check) for name, check in self.checks.items()}

    def notes(self) -> dict[str, Check]:
        """What they say, whether it counts or not."""
        return {name: check for name, check in self.checks.items() if name in SHARED or name == WORK}

    def _counts(self, name: str, check: Check) -> Check:
        def asked() -> str | None:
            spared = name in SHARED or (name == WORK and self._waits)
            return None if spared and self._was_ready else check()

        return asked
