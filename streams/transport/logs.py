"""Which log a topic is, and where its partitions begin and end: an offset means something in one log only.

A topic that is deleted and made anew keeps its name and begins at 0 again; so does one of the same name on another
cluster. What tells them apart is the topic's id (KIP-516), which Metadata has from version 10 on; aiokafka 0.14 stops
at version 5, so version 12 is spelled here. A broker without topic ids is known by its cluster's id alone.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from aiokafka.errors import KafkaConnectionError, UnknownTopicOrPartitionError, for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.metadata import MetadataRequest_v5
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Int64,
    Schema,
    TaggedFields,
)
from aiokafka.structs import TopicPartition

from embeddings.events import Source
from streams.transport.tail import last_records

log = logging.getLogger(__name__)

_UNKNOWN_TOPIC, _NO_LEADER = 3, 5
_LOOK_S = 5.0
_TAGS = ("tags", TaggedFields)
UNKNOWN_END = 2**63 - 1


class ForeignLog(Exception):
    """What is remembered of a topic belongs to another log of that name. The process ends: it would pass over records.

    The message says which command settles it.
    """


class Log(NamedTuple):
    """A topic as the broker has it: `<cluster id>/<topic id>`, the latter only where brokers have ids."""

    identity: str
    partitions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """What is known of an assigned partition before anything of it is delivered.

    Attributes:
        committed: the group's committed offset, -1 where there is none.
        note: what was committed with it, see `Batching.note`.
        first: offset of the first record that is still there; the end where there is none.
        end: offset after the last.
        log: identity of the log; empty where it is not known.
    """

    committed: int = -1
    note: str = ""
    first: int = 0
    end: int = UNKNOWN_END
    log: str = ""


class _TopicsResponse(Response):  # type: ignore[misc]  # aiokafka has no types
    API_KEY = 3
    API_VERSION = 12
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(("id", Int32), ("host", CompactString()), ("port", Int32), ("rack", CompactString()), _TAGS),
        ),
        ("cluster_id", CompactString()),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("topic", CompactString()),
                ("id_high", Int64),
                ("id_low", Int64),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        _TAGS,
                    ),
                ),
                ("authorized_operations", Int32),
                _TAGS,
            ),
        ),
        _TAGS,
    )


class _TopicsRequest(RequestStruct):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 12
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _TopicsResponse
    SCHEMA = Schema(
        ("topics", CompactArray(("id_high", Int64), ("id_low", Int64), ("topic", CompactString()), _TAGS)),
        ("allow_auto_topic_creation", Boolean),
        ("include_topic_authorized_operations", Boolean),
        _TAGS,
    )


class TopicsRequest(Request[MetadataRequest_v5 | _TopicsRequest]):  # type: ignore[misc]
    """What there is of some topics, with their ids where the broker has them; creates none."""

    API_KEY = 3

    def __init__(self, names: Collection[str]) -> None:
        self._names = sorted(names)

    def build(self, request_struct_class: type[Any]) -> Any:
        """The request in the newest version that the broker knows."""
        if request_struct_class is MetadataRequest_v5:
            return MetadataRequest_v5(self._names, False)
        return _TopicsRequest([(0, 0, name, {}) for name in self._names], False, False, {})


async def logs_of(client: Any, names: Collection[str]) -> dict[str, Log]:
    """The topics of these names that exist, as one broker knows them; `client` is aiokafka's.

    Raises:
        aiokafka.errors.KafkaError: no broker answers, or it says nothing of one of them. Ask again.
    """
    node = client.get_random_node()
    if node is None:
        raise KafkaConnectionError("no broker is known")
    return read_logs(await client.send(node, TopicsRequest(names)))


async def stretches_of(consumer: Any, sources: Collection[Source]) -> dict[Source, Stretch]:
    """What the brokers say of the partitions that an aiokafka consumer was assigned.

    Raises:
        KafkaError, TimeoutError: they do not answer, or a topic is not there. Ask again.
    """
    at = {source: TopicPartition(*source) for source in sources}
    if not at:
        return {}
    tps = list(at.values())
    async with asyncio.timeout(_LOOK_S):
        logs = await logs_of(consumer._client, {source.topic for source in sources})
        if missing := {source.topic for source in sources} - logs.keys():
            raise UnknownTopicOrPartitionError(", ".join(sorted(missing)))
        committed = await consumer._coordinator.fetch_committed_offsets(tps)
        first, end = await consumer.beginning_offsets(tps), await consumer.end_offsets(tps)
    return {
        source: Stretch(
            committed=committed[tp].offset if tp in committed else -1,
            note=committed[tp].metadata if tp in committed else "",
            first=first[tp],
            end=end[tp],
            log=logs[source.topic].identity,
        )
        for source, tp in at.items()
    }


async def read_ends(options: Mapping[str, Any], stretches: Mapping[Source, Stretch]) -> dict[Source, Stretch]:
    """The partitions with their ends by the last records that are there; `options` are a client's.

    The embedded broker tells the offset after the first record of the last batch for the end, here and in fetches.

    Raises:
        KafkaError, OSError: brokers do not answer. Ask again.
    """
    found = dict(stretches)
    for topic in {source.topic for source in stretches}:
        partitions = {source.partition for source in stretches if source.topic == topic}
        for source, records in await last_records(options, topic, 1, partitions=partitions):
            found[source] = replace(found[source], end=max(found[source].end, records[-1].offset + 1))
    return found


def read_logs(answer: Any) -> dict[str, Log]:
    """The topics in an answer to `TopicsRequest` of either version."""
    found = {}
    for error_code, name, *fields in answer.topics:
        if error_code not in (0, _NO_LEADER, _UNKNOWN_TOPIC):
            raise for_code(error_code)(name)
        if error_code != _UNKNOWN_TOPIC:
            found[name] = _log(answer, fields)
    return found


def _log(answer: Any, fields: list[Any]) -> Log:
    cluster = answer.cluster_id or ""
    if answer.API_VERSION != _TopicsResponse.API_VERSION:
        return Log(cluster, len(fields[1]))
    high, low, _, partitions, *_ = fields
    number = (high % 2**64) << 64 | low % 2**64
    return Log(f"{cluster}/{number:032x}" if number else cluster, len(partitions))


def refuse_foreign(source: Source, stretch: Stretch, *, after: int, log: str, where: str) -> None:
    """See that what is remembered of a partition can be of this log.

    Args:
        source: the partition.
        stretch: what the broker says of it.
        after: the offset after the last record that is remembered, 0 or less for none.
        log: the identity that it was remembered with, empty where it was not.
        where: who remembers.

    Raises:
        ForeignLog: it cannot.
    """
    if after <= 0:
        return
    if differ(log, stretch.log):
        what = f"is another log ({stretch.log}) than the one that {where} remembers ({log})"
    elif after > stretch.end:
        what = f"ends at {stretch.end} in partition {source.partition}, but {where} remembers {after} records of it"
    else:
        return
    raise ForeignLog(
        f"{source.topic} {what}: the topic was made anew, or this is another cluster. Its records would be taken for"
        f" old ones. `marquee state reset-marks --topic {source.topic}` starts it over; or mend kafka.bootstrap"
    )


def differ(one: str, other: str) -> bool:
    """Two identities differ where both say it: an empty one is of any log, brokers that learned topic ids say more."""
    return bool(one and other) and any(a != b for a, b in zip(one.split("/"), other.split("/"), strict=False))


@dataclass(slots=True)
class Expired:
    """Says, once, which records retention removed before they were read; `count` is called with topic and number."""

    count: Callable[[str, int], object]
    _said: dict[Source, int] = field(default_factory=dict)

    def note(self, source: Source, after: int, stretch: Stretch) -> None:
        """Compare where a partition would go on, 0 or less where nothing was read, with the first record there."""
        after = max(after, self._said.get(source, 0)) if after > 0 else stretch.first
        if after < stretch.first:
            self._said[source] = stretch.first
            lost = stretch.first - after
            log.warning(
                "%s/%d: %d records were removed before they were read (offsets %d to %d): retention is too short, or"
                " nobody read for too long",
                *(*source, lost, after, stretch.first - 1),
            )
            self.count(source.topic, lost)
