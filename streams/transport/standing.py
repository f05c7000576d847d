"""How a member of a group and a reader of control topics stand, for whoever looks once a second."""

import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic
from typing import cast

from streams.transport.batching import BatchApp, BatchConsumer
from streams.transport.control import ControlReader


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a member stands.

    Attributes:
        generation: of the group, as the coordinator counts; -1 before it is one.
        assigned: how many partitions of each topic are its.
        oldest_s: the age of the oldest unit of each lane that is out, 0 where none is.
        silent_s: since a broker answered.
        holdup: why units do not move.
    """

    generation: int
    assigned: Mapping[str, int]
    oldest_s: Mapping[str, float]
    silent_s: float
    holdup: str | None


@dataclass(frozen=True, slots=True)
class ControlStanding:
    """Whether a topic was read to its end, how many records are not, and since when a leader is silent."""

    read: bool
    unread: float
    silent_s: float


def standing_of(app: BatchApp) -> Standing:
    """How a member stands now."""
    consumer, now_s = cast(BatchConsumer, app.consumer), monotonic()
    gates = consumer.deliveries.gates
    return Standing(
        generation=int(app.consumer_generation_id or 0),
        assigned=dict.fromkeys(gates, 0) | Counter(source.topic for source in app.owned()),
        oldest_s={topic: gate.oldest_s(now_s) for topic, gate in gates.items()},
        silent_s=consumer._unheard_s(now_s),
        holdup=app.holdup(),
    )


def control_standing(reader: ControlReader) -> dict[str, ControlStanding]:
    """How far each topic is read; what is unread and how old that knowledge is are NaN before it is known."""
    found = {}
    for topic in reader.handlers:
        readings = [reading for tp, reading in list(reader._readings.items()) if tp.topic == topic]
        read = bool(readings) and all(reading.read for reading in readings)
        known = readings and all(reading.end is not None for reading in readings)
        unread = sum(reading.unread for reading in readings) if known else math.nan
        silent_s = (
            max((time.time() - reading.answered_ms / 1000 for reading in readings), default=0) if known else math.nan
        )
        found[topic] = ControlStanding(read, unread, silent_s)
    return found
