"""Which version of a campaign is the later one, also where its topic was deleted and made anew.

A record's offset says what comes later in one log only. So a version is the number of the log's life and the offset in
it. Lives are numbered by when somebody saw them first, in hours, and what was seen is kept for all workers.

>>> lives = CampaignLives(MemoryKeepsake(), now_s=lambda: 36_000)
>>> first = lives.version(50)
>>> lives.begin("another")
>>> lives.told(first) < lives.told(lives.version(3))
True
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from embeddings.keepsake import Keepsake

_BITS = 31
"""Of an offset; above them 22 are left for hours in what Lua counts exactly."""
_HOUR_S = 3_600


@dataclass(slots=True)
class CampaignLives:
    """The lives of the topic that this process has read; `log` is the identity of the one it reads.

    Attributes:
        kept: where workers leave which lives they saw.
        now_s: wall clock.
    """

    kept: Keepsake
    now_s: Callable[[], float] = time.time
    log: str = ""
    _seen: list[str] = field(init=False, default_factory=list)
    _number_of: dict[str, int] = field(init=False, default_factory=dict)

    def begin(self, log: str) -> None:
        """What is read from now on is of this log."""
        self.log = log

    def version(self, offset: int) -> int:
        """Of a record that was just read, for this process."""
        if self.log not in self._seen:
            self._seen.append(self.log)
        return self._seen.index(self.log) << _BITS | offset

    def told(self, version: int) -> int:
        """The version as the spend ledger knows it: the same in every worker.

        Raises:
            StoreUnavailable, StoreRefused: which lives there were cannot be asked. Tell it later.
        """
        log = self._seen[version >> _BITS]
        if log not in self._number_of:
            self._ask(log)
        return self._number_of[log] << _BITS | version & (1 << _BITS) - 1

    def _ask(self, log: str) -> None:
        """The number of a life; one that nobody has seen is later than all, and what another wrote just now stands."""
        while log not in (known := self._known()):
            number = max([int(self.now_s()) // _HOUR_S, *(number + 1 for number in known.values())])
            self.kept.keep(json.dumps(known | {log: number}).encode())
        self._number_of[log] = known[log]

    def _known(self) -> dict[str, int]:
        found: dict[str, int] = json.loads(self.kept.load() or b"{}")
        return found
