"""Rate, errors and duration of what a process does: stages, publications, round trips to Redis."""

from collections.abc import Iterable, Mapping
from time import perf_counter
from types import TracebackType
from typing import Self

from prometheus_client import Counter, Histogram

from embeddings.redis_connection import FAILURES, Watch
from streams.process.series import Series
from streams.transport.publishing import FAILED, PublishFailed

STAGE_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 5)
ROUND_TRIP_SECONDS = (0.0005, 0.001, 0.0025, 0.01, 0.05, 0.25, 2.5)
PUBLISH_SECONDS = (0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 30)


class _Timed:
    """Times a block, also one that raises, which is counted."""

    __slots__ = ("_began_s", "_errors", "_seconds")

    def __init__(self, seconds: Histogram, errors: Counter) -> None:
        self._seconds, self._errors, self._began_s = seconds, errors, perf_counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._seconds.observe(perf_counter() - self._began_s)
        if kind is not None:
            self._errors.inc()


class StageMetrics:
    """The stages of each lane."""

    def __init__(self, series: Series, stages: Mapping[str, Iterable[str]]) -> None:
        """`stages` are those of each lane."""
        labels = [(lane, stage) for lane, of in stages.items() for stage in of]
        self.seconds = series.histogram(
            "stage_seconds",
            "Time of a stage for a whole batch, by the lane that it serves.",
            "If it grows with the batch size the machine is full: add a worker; if not, look at what it waits for.",
            STAGE_SECONDS,
            lane=(),
            stage=(),
        )
        self.errors = series.counter(
            "stage_errors",
            "Times that a stage raised; the batch is tried again, and nothing is lost.",
            "If it rises for minutes, the log names the error and the store or broker that is away.",
            lane=(),
            stage=(),
        )
        self._of = {
            (stage, lane): (self.seconds.labels(lane, stage), self.errors.labels(lane, stage)) for lane, stage in labels
        }

    def __call__(self, stage: str, lane: str) -> _Timed:
        """A block in which a stage of a lane runs."""
        return _Timed(*self._of[stage, lane])


class PublishMetrics:
    """What is handed to the brokers, by who does."""

    def __init__(self, series: Series, publishers: tuple[str, ...]) -> None:
        """`publishers` are the names of those who do."""
        self.seconds = series.histogram(
            "publish_seconds",
            "From handing records over to the acknowledgement of all in-sync replicas.",
            "If it grows while stages do not, look at the brokers: under-replicated partitions, disks, network.",
            PUBLISH_SECONDS,
            publisher=publishers,
        )
        self.records = series.counter(
            "published_records",
            "Records that all in-sync replicas have.",
            "Compare with marquee_records_consumed_total: what comes in leads to something that goes out.",
            publisher=publishers,
        )
        self.errors = series.counter(
            "publish_errors",
            "Publications that failed, by why; all but `too_large` and `refused` are tried again.",
            "If `refused` or `too_large` rises the process ends: mend rights or the topic's max.message.bytes.",
            publisher=publishers,
            kind=FAILED,
        )

    def told(self, publisher: str, seconds: float, records: int, error: PublishFailed | None) -> None:
        """A publication ended."""
        self.seconds.labels(publisher).observe(seconds)
        if error is None:
            self.records.labels(publisher).inc(records)
        else:
            self.errors.labels(publisher, error.kind).inc()


class RedisMetrics:
    """Round trips by who asks, failures by why."""

    def __init__(self, series: Series, clients: tuple[str, ...]) -> None:
        """`clients` are the names of those who ask."""
        self.seconds = series.histogram(
            "redis_round_trip_seconds",
            "Time of one exchange with Redis, answered or not.",
            "If it grows, look at Redis: slow commands (SLOWLOG), its CPU, a fork for saving, the network between.",
            ROUND_TRIP_SECONDS,
            client=clients,
        )
        self.connections = series.counter(
            "redis_connections",
            "Connections that were opened.",
            "If it goes on rising after the start, connections break: look at Redis' timeout and at what is between.",
            client=clients,
        )
        self.errors = series.counter(
            "redis_errors",
            "Exchanges that failed, by why; `fenced` are writes that were refused because another worker has the"
            " partition, or Redis lost what it had.",
            "If `full` rises raise maxmemory, if `replica` does name the primary, if `refused` does see the log.",
            kind=(*FAILURES, "fenced"),
        )
        self.memory = series.gauge(
            "redis_memory_bytes",
            "Memory that Redis uses, and how much it may (0: no limit).",
            "If `used` comes near to `max`, raise maxmemory or shorten redis.state_ttl_s: writes stop at the limit.",
            state=("used", "max"),
        )

    def watch(self, client: str) -> Watch:
        """What watches the connections of a client."""
        return _Client(self, client)

    def failed(self, kind: str) -> None:
        """An exchange failed."""
        self.errors.labels(kind).inc()


class _Client(Watch):
    """The connections of one client."""

    def __init__(self, metrics: RedisMetrics, client: str) -> None:
        self._seconds, self._connections = metrics.seconds.labels(client), metrics.connections.labels(client)
        self._failed = metrics.failed

    def connected(self) -> None:
        self._connections.inc()

    def exchanged(self, seconds: float) -> None:
        self._seconds.observe(seconds)

    def failed(self, kind: str) -> None:
        self._failed(kind)
