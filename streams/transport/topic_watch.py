"""Are the topics still those of the start: none deleted, none made anew, none of other partitions? No I/O.

>>> watch = TopicWatch(read=["events"], counts={"events": 8})
>>> watch.look({"events": Log("cluster/1", 16)}), watch.why()
(None, 'events has 16 partitions, topics.partitions is 8')
>>> watch.look({}), watch.why()
(None, 'events is gone')
>>> watch.look({})
Traceback (most recent call last):
    ...
streams.transport.topic_watch.TopicGone: events is gone: it was deleted while it was read
"""

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from streams.transport.logs import ForeignLog, Log

log = logging.getLogger(__name__)
_LOOKS = 2
"""A broker that has just started may not know of a topic yet, so one look is none."""


class TopicGone(Exception):
    """A topic that is read does not exist any more. The process ends."""


@dataclass(slots=True, kw_only=True)
class TopicWatch:
    """Judges what brokers say of the topics, look by look.

    Attributes:
        read: the topics that are consumed.
        counts: the partitions that topics must have.
    """

    read: Collection[str]
    counts: Mapping[str, int]
    _known: dict[str, str] = field(default_factory=dict)
    _wrong: dict[str, int] = field(default_factory=dict)
    _why: str | None = None

    @property
    def names(self) -> set[str]:
        """The topics to look at."""
        return {*self.read, *self.counts}

    def why(self) -> str | None:
        """What is not as it should be, as of the last look; for a readiness check."""
        return self._why

    def look(self, found: Mapping[str, Log]) -> None:
        """Take in what a broker knows.

        Raises:
            TopicGone: a topic that is read was missing twice in a row.
            ForeignLog: a topic that is read is another one, twice in a row.
        """
        gone = sorted(self.names - found.keys())
        other = sorted(name for name in self.read if name in found and self._is_other(name, found[name]))
        for name in {*gone, *other} & {*self.read}:
            self._wrong[name] = self._wrong.get(name, 0) + 1
            if self._wrong[name] >= _LOOKS:
                raise self._end(name, name in found)
        self._wrong = {name: count for name, count in self._wrong.items() if name in gone or name in other}
        grown = [
            f"{name} has {found[name].partitions} partitions, topics.partitions is {count}"
            for name, count in self.counts.items()
            if name in found and found[name].partitions != count
        ]
        said = [*(f"{name} is gone" for name in gone), *(f"{name} was made anew" for name in other), *grown]
        self._say("; ".join(said) or None)

    def _is_other(self, name: str, found: Log) -> bool:
        return self._known.setdefault(name, found.identity) != found.identity

    def _end(self, name: str, exists: bool) -> Exception:
        if not exists:
            return TopicGone(f"{name} is gone: it was deleted while it was read")
        return ForeignLog(
            f"{name} was deleted and made anew while it was read:"
            f" `marquee state reset-marks --topic {name}` starts it over"
        )

    def _say(self, why: str | None) -> None:
        if why is not None and why != self._why:
            log.warning("topics are not as the settings say: %s", why)
        self._why = why
