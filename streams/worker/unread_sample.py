"""Members that nobody reads, found in a sample: one record of a batch is read a second time, whatever its size."""

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
    _names: Counter[str] = field(init=False, default_factory=Counter)
    _due_s: float = field(init=False, default=float("-inf"))

    def look(self, records: Sequence[RawRecord]) -> None:
        """Look at one of some records; at none that is a null or cannot be read, which is told elsewhere."""
        record = random.choice(records) if records else None
        if record is None or record.value is None:
            return
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
