"""What is looked at once a second, and what is told of it."""

import math

from embeddings.events import Source
from streams.process.metrics import WorkerMetrics
from streams.process.watching import Watching
from streams.settings import Settings, Topics
from streams.transport.control import ControlReader
from streams.transport.deliveries import Lag
from streams.transport.standing import Standing, control_standing
from streams.transport.unowned import Unowned

EVENTS, SEEN = "klicks", "marquee.observations.v1"
"""Topics by their names: of another tongue, and as they are called."""


async def nothing(_records: object) -> None:
    """Handles a record of a control topic."""


def watching(metrics: WorkerMetrics, unowned: Unowned, control: ControlReader) -> Watching:
    standing = Standing(
        generation=1, assigned={EVENTS: 1}, oldest_s={EVENTS: 2.5}, silent_s=0.1, holdup="a unit is un-acknowledged"
    )
    return Watching(
        settings=Settings(topics=Topics(events=EVENTS)),
        metrics=metrics,
        standing=lambda: standing,
        lags=lambda: {Source(EVENTS, 0): Lag(3, 0.0)},
        control=lambda: control_standing(control),
        checks={"ready": {"work": lambda: standing.holdup, "store": lambda: None}},
        unowned=unowned,
        whole={SEEN},
    )


async def test_everything_is_told_as_it_stands_now() -> None:
    metrics, unowned = WorkerMetrics(process=False), Unowned(options={}, groups={})
    control = ControlReader(options={}, handlers={"marquee.catalog.v1": nothing})
    value = metrics.registry.get_sample_value
    look = watching(metrics, unowned, control)
    look.look()
    assert value("marquee_lag_records", {"lane": "events", "topic": EVENTS, "partition": "0"}) == 3
    assert math.isnan(value("marquee_partitions_unowned", {"topic": "observations"}) or 0), "others tell"
    assert value("marquee_check_ok", {"probe": "ready", "check": "work"}) == 0
    assert value("marquee_check_ok", {"probe": "ready", "check": "store"}) == 1
    assert value("marquee_oldest_unit_seconds", {"topic": "events"}) == 2.5
    assert value("marquee_control_read", {"topic": "catalog"}) == 0
    assert math.isnan(value("marquee_control_unread_records", {"topic": "catalog"}) or 0)
    unowned._known = True
    unowned.lags = {
        Source(EVENTS, 7): Lag(4, 9.0),
        Source(SEEN, 0): Lag(5, 1.0),
        Source(SEEN, 1): Lag(2, 8.0),
    }
    look.look()
    assert value("marquee_lag_seconds", {"lane": "events", "topic": EVENTS, "partition": "7"}) == 9
    assert value("marquee_lag_records", {"lane": "observations", "topic": SEEN, "partition": "all"}) == 7
    assert value("marquee_lag_seconds", {"lane": "observations", "topic": SEEN, "partition": "all"}) == 8
    assert value("marquee_partitions_unowned", {"topic": "observations"}) == 2
    unowned._forget()
    await look.second()
    assert value("marquee_lag_seconds", {"lane": "events", "topic": EVENTS, "partition": "7"}) is None
    assert value("marquee_event_loop_lag_seconds_count") == 4
