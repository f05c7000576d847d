"""Members that nobody reads, found in a sample: of a batch one record at most is read a second time.

Small batches share a look, which costs as much as a hundredth of a batch of one.
"""

import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from streams.contract.messages import RawRecord
from streams.contract.unread import KINDS, spoken, unread_members
from streams.process.input_metrics import UnreadMetrics
from streams.settings import TopicName

log = logging.getLogger(__name__)

_EVERY = 64
"""Records that a look is for."""
_SAID, _KEPT = 8, 64


@dataclass(slots=True)
class UnreadSample:
    """Counts how many of the records looked at have such members, and names them at first and once in `every_s`."""

    topic: TopicName
    called: str
    """The topic's name at the brokers."""
    metrics: UnreadMetrics
    every_s: float = 3_600
    clock: Callable[[], float] = time.monotonic
    _passed: int = field(init=False, default=_EVERY)
    """Records since the last look."""
    _names: Counter[str] = field(init=False, default_factory=Counter)
    _due_s: float = field(init=False, default=float("-inf"))

    def look(self, records: Sequence[RawRecord]) -> None:
        """Look at one of these if enough have passed; a null says nothing, what cannot be read is told elsewhere."""
        self._passed += len(records)
        if self._passed < _EVERY or not records or (record := random.choice(records)).value is None:
            return
        self._passed = 0
        try:
            names = unread_members(record, KINDS[self.topic])
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return
        self.metrics.looked(self.topic, unread=bool(names))
        if names:
            self._say(names)

    def _say(self, names: set[str]) -> None:
        self._names.update(names)
        if len(self._names) > _KEPT:
            self._names = Counter(dict(self._names.most_common(_SAID)))
        if self.clock() >= self._due_s:
            self._due_s = self.clock() + self.every_s
            common = spoken(name for name, _ in self._names.most_common(_SAID))
            log.info(
                "records of %s have members that nobody reads (%s): if one is misspelt, mend its producer;"
                " docs/contract.md has those that are read",
                self.called,
                common,
            )
            self._names.clear()
