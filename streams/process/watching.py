"""What a process looks at once a second, for its metrics: membership, lag, control topics, probes, GPUs."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from embeddings.events import Source
from streams.process.health import Check
from streams.process.input_metrics import WHOLE
from streams.process.metrics import Metrics
from streams.settings import TOPIC_NAMES, Settings, TopicName
from streams.transport.deliveries import Lag
from streams.transport.standing import ControlStanding, Standing
from streams.transport.unowned import Unowned

_NAPS = 4
"""So many make a second."""


@dataclass(slots=True, kw_only=True)
class Watching:
    """Looks, and naps; in the loop of heartbeats and pages, so it must not block.

    Attributes:
        settings: for what topics are called.
        metrics: what is told.
        standing: how the membership stands.
        lags: the lag of each owned partition.
        control: how far control topics are read.
        checks: of each probe.
        unowned: who tells of partitions that nobody has.
        whole: the topics of which all such partitions are told together.
    """

    settings: Settings
    metrics: Metrics
    standing: Callable[[], Standing | None]
    lags: Callable[[], Mapping[Source, Lag]]
    control: Callable[[], Mapping[str, ControlStanding]]
    checks: Mapping[str, Mapping[str, Check]]
    unowned: Unowned | None = None
    whole: Collection[str] = ()

    def look(self) -> None:
        """Tell how everything stands now."""
        names: dict[str, TopicName] = {self.settings.topics.name(name): name for name in TOPIC_NAMES}
        if (standing := self.standing()) is not None:
            self.metrics.group.stand(standing, names)
        self.metrics.control.stand(self.control(), names)
        lags = self.lags()
        if (unowned := self.unowned) is not None:
            lags = {
                **_together(unowned.lags, self.whole),
                **{source: unowned.dated(source, lag) for source, lag in lags.items()},
            }
            self.metrics.group.nobodys(unowned.many(names))
        self.metrics.group.lags(lags, names)
        for probe, checks in self.checks.items():
            self.metrics.own.probed(probe, checks)
        self.metrics.own.gpus()

    async def second(self) -> None:
        """Look once, then let a second pass, and note how late the loop was in it."""
        self.look()
        for _ in range(_NAPS):
            await self.metrics.own.nap()


def _together(lags: Mapping[Source, Lag], whole: Collection[str]) -> dict[Source, Lag]:
    """The lags, those of some topics as one each: all records, and the age of the oldest."""
    found: dict[Source, Lag] = {}
    for source, lag in lags.items():
        place = Source(source.topic, WHOLE) if source.topic in whole else source
        before = found.get(place, Lag(0, 0.0))
        found[place] = Lag(before.records + lag.records, max(before.seconds, lag.seconds))
    return found
