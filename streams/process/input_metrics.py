"""What comes in and how far behind it is: records, batches, lag, who has which partitions, control topics."""

import math
from collections.abc import Iterable, Mapping

from embeddings.events import Source
from streams.contract.deadletters import Code
from streams.process.series import Series
from streams.settings import TopicName
from streams.transport.deliveries import Lag
from streams.transport.standing import ControlStanding, Standing

BATCH_RECORDS = (1, 4, 16, 64, 256, 512, 1_024, 4_096)

WHOLE = -1
"""All partitions of a topic together: of one that another group reads and nobody does, told where series are many."""
_Place = tuple[TopicName, str, str]
"""Lane, topic and partition, as labels say them."""
_OF_LANES = {Code.future, Code.seconds, Code.misrouted, Code.unknown_topic}
"""What a record of a control topic cannot be."""


class InputMetrics:
    """Records of the topics that a process reads."""

    def __init__(self, series: Series, lanes: Iterable[TopicName], control: Iterable[TopicName]) -> None:
        """`lanes` are read in batches by a group, `control` topics whole by everybody."""
        self._lanes, reads = tuple(lanes), (*lanes, *control)
        self.consumed = series.counter(
            "records_consumed",
            "Records delivered.",
            "If it stops while marquee_lag_records grows, look at /readyz.",
            topic=reads,
        )
        self.batch_records = series.histogram(
            "batch_records",
            "Records in a batch.",
            "If most batches are full (batching.max_batch) the process is behind: add a worker.",
            BATCH_RECORDS,
            topic=self._lanes,
        )
        self.dead_letters = series.counter(
            "dead_letters",
            "Records written to a topic for dead letters.",
            "If it rises, `marquee dlq list` says who sent what; mend the producer, then `marquee dlq replay`.",
            topic=(),
            code=(),
        )
        for topic in reads:
            for code in Code if topic in self._lanes else set(Code) - _OF_LANES:
                self.dead_letters.labels(topic, code)
        self.expired = series.counter(
            "records_expired",
            "Records that retention removed before they were read: they are lost.",
            "If it rises at all, raise the topic's retention.ms above the longest time that nobody may be reading.",
            topic=self._lanes,
        )
        self.paused = series.gauge(
            "partition_paused",
            "Share of dead letters for which a partition is paused; no series where it is not.",
            "If there is one, mend the producer, look at `marquee dlq list`, then `marquee dlq release`.",
            topic=(),
            partition=(),
            code=(),
        )


class UnreadMetrics:
    """How many records say something that nobody reads, in a sample."""

    def __init__(self, series: Series, topics: Iterable[TopicName]) -> None:
        """`topics` are those that others write."""
        names = tuple(topics)
        self.sampled = series.counter(
            "records_sampled",
            "Records that were looked at for members that nobody reads: one of 64, and of a batch at most one.",
            "Divide marquee_records_sampled_unread_total by it for their share.",
            topic=names,
        )
        self.unread = series.counter(
            "records_sampled_unread",
            "Of these, records with members that nobody reads, which are ignored.",
            "If it rises, a producer may misspell one: the log names them once an hour, docs/contract.md has those that"
            " are read.",
            topic=names,
        )

    def looked(self, topic: TopicName, *, unread: bool) -> None:
        """A record was looked at."""
        self.sampled.labels(topic).inc()
        if unread:
            self.unread.labels(topic).inc()


class LagMetrics:
    """How far behind partitions are, and how the membership in the group stands."""

    def __init__(self, series: Series, lanes: Iterable[TopicName], group: Iterable[TopicName]) -> None:
        """`lanes` are this process', `group` those whose lag it may be asked to tell."""
        self._lanes = tuple(lanes)
        self.records = series.gauge(
            "lag_records",
            "Records that wait in a partition of this process, or in one that nobody delivers.",
            "If it grows for minutes, add a worker; take max by (topic, partition) before a sum.",
            lane=(),
            topic=(),
            partition=(),
        )
        self.seconds = series.gauge(
            "lag_seconds",
            "Age of the first record of a partition that waits, 0 where none does.",
            "If it is beyond what your users bear, add a worker, or look at /readyz of the one that has the partition.",
            lane=(),
            topic=(),
            partition=(),
        )
        self.assigned = series.gauge(
            "partitions_assigned",
            "Partitions that are this process'.",
            "If it is 0 for minutes, there are more processes than partitions.",
            start=0,
            topic=self._lanes,
        )
        self.unowned = series.gauge(
            "partitions_unowned",
            "Partitions that are no live member's, told by the owner of the first partition only.",
            "If it stays above 0, start a process of that group; after growth, restart with the new count.",
            topic=tuple(group),
        )
        self.rebalances = series.counter(
            "rebalances",
            "Times that the group divided its partitions anew.",
            "If it goes on rising, a process comes and goes: look for restarts and blocked loops.",
        )
        self.unit = series.gauge(
            "oldest_unit_seconds",
            "Age of the oldest batch that is delivered and not acknowledged.",
            "If it nears batching.stuck_after_s the watchdog ends the process: see what the batch waits for.",
            start=0,
            topic=self._lanes,
        )
        self.held_up = series.gauge(
            "work_held_up",
            "Whether batches do not move although there are some (1).",
            "If it is 1, /readyz says why under `work`.",
            start=0,
        )
        self.silent = series.gauge(
            "brokers_silent_seconds",
            "Since a broker answered.",
            "If it grows, no broker answers: look at kafka.bootstrap, the network and the brokers.",
        )
        self._told = set[_Place]()
        self._generation = -1

    def lags(self, lags: Mapping[Source, Lag], names: Mapping[str, TopicName]) -> None:
        """How far behind all are that this process tells of; those of before are told by others now.

        `names` are the short ones of topics: a topic may be called anything, its lane is what rules go by.
        """
        places = {_place(source, names[source.topic]): lag for source, lag in lags.items()}
        for place in self._told - places.keys():
            self.records.remove(*place)
            self.seconds.remove(*place)
        for place, lag in places.items():
            self.records.labels(*place).set(lag.records)
            self.seconds.labels(*place).set(lag.seconds)
        self._told = set(places)

    def stand(self, standing: Standing, names: Mapping[str, TopicName]) -> None:
        """How the membership stands; `names` are the short ones of topics."""
        for topic, oldest_s in standing.oldest_s.items():
            self.unit.labels(names[topic]).set(oldest_s)
        for topic, many in standing.assigned.items():
            self.assigned.labels(names[topic]).set(many)
        self.held_up.set(standing.holdup is not None)
        self.silent.set(standing.silent_s)
        if 0 <= self._generation < standing.generation:
            self.rebalances.inc(standing.generation - self._generation)
        self._generation = max(standing.generation, self._generation)

    def nobodys(self, many: Mapping[TopicName, int] | None) -> None:
        """How many partitions of each topic are nobody's; None where another process tells."""
        for topic in self.unowned._metrics:
            self.unowned.labels(*topic).set(math.nan if many is None else many.get(topic[0], 0))  # type: ignore[call-overload]


def _place(source: Source, lane: TopicName) -> _Place:
    return lane, source.topic, "all" if source.partition == WHOLE else str(source.partition)


class ControlMetrics:
    """How far the control topics are read."""

    def __init__(self, series: Series, topics: Iterable[TopicName]) -> None:
        """`topics` are those that are read whole."""
        names = tuple(topics)
        self.read = series.gauge(
            "control_read",
            "Whether a control topic was read to its end (1).",
            "If it stays 0 the process takes no partitions: see marquee_control_unread_records, or the brokers.",
            start=0,
            topic=names,
        )
        self.unread = series.gauge(
            "control_unread_records",
            "Records of a control topic that are not read yet.",
            "If it grows, removals and campaigns come late: look at the process' CPU.",
            topic=names,
        )
        self.age = series.gauge(
            "control_age_seconds",
            "Since the leader of its slowest partition answered.",
            "If it grows, that leader is away: removals and stopped campaigns are not heard of.",
            topic=names,
        )

    def stand(self, standing: Mapping[str, ControlStanding], names: Mapping[str, TopicName]) -> None:
        """How far each is read; `names` are the short ones of topics."""
        for topic, how in standing.items():
            self.read.labels(names[topic]).set(how.read)
            self.unread.labels(names[topic]).set(how.unread)
            self.age.labels(names[topic]).set(how.silent_s)
