"""What producers do that costs no record and should be mended: a line in the log when it begins and while it lasts."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

log = logging.getLogger(__name__)

_WINDOW, _LEAST = 1_000, 10
MISROUTED = (
    "are not in the partition of their user_id, and are sent there: have their producers write to murmur2(user_id)"
    " (librdkafka: partitioner=murmur2_random; keys: the plain user_id)"
)
MISDATED = (
    "have a record timestamp that is missing, not in epoch milliseconds or far ahead of this machine's clock:"
    " have their producers leave it out, or set it to epoch milliseconds by a clock that is right"
)


@dataclass(slots=True)
class Complaint:
    """Something about ten of the last thousand records or more; said again after `every_s` while that lasts."""

    remedy: str
    every_s: float = 3_600
    clock: Callable[[], float] = time.monotonic
    _records: float = field(init=False, default=0.0)
    _wrong: float = field(init=False, default=0.0)
    _due_s: float = field(init=False, default=float("-inf"))

    def count(self, topic: str, records: int, wrong: int) -> None:
        """Take a batch into account: so many records of a topic, and how many of them give cause."""
        self._records += records
        self._wrong += wrong
        if self._records > _WINDOW:
            self._records, self._wrong = _WINDOW, self._wrong * _WINDOW / self._records
        if self._wrong < 1:
            self._due_s = float("-inf")
        elif self._wrong >= _LEAST and self.clock() >= self._due_s:
            self._due_s = self.clock() + self.every_s
            log.warning("%d of the last %d records of %s %s", self._wrong, self._records, topic, self.remedy)
