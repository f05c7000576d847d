"""Publishing what a batch caused, and knowing that the broker has it.

The idempotent aiokafka producer is called directly, with records packed here: Faust's `topic.send` costs six times as
much, and a result that nobody awaits is lost silently there.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    InvalidTopicError,
    KafkaConnectionError,
    KafkaError,
    MessageSizeTooLargeError,
    ProducerClosed,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from embeddings.ids import murmur2
from streams.contract.messages import Outgoing
from streams.transport.brokers import answer

_TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)
_PERMANENT = (InvalidTopicError, TopicAuthorizationFailedError, *_TOO_LARGE)
FAILED = ("away", "refused", "too_large", "unknown_topic")
"""Why records are not with the broker; of the first and the last it is worth to try again."""
_PACKET_BYTES = 512 * 1024
"""Records of a partition travel in packets of this size; every packet is a turn of the broker's. aiokafka's 16 KiB
hold six slates. Brokers and topics take 1 MiB unless told otherwise."""
_WRITE_TURNS, _MOST_TURNS = 6, 16
"""So often the loop goes round until aiokafka's sender has written what it was given, and so often when it had to take
in the answer to what it wrote before."""
_START_S, _CLOSE_S, _TELL_S = 30.0, 3.0, 3.0


class _Packet(NamedTuple):
    """What was handed over to aiokafka in one piece."""

    future: "asyncio.Future[Any]"
    records: Sequence[Outgoing]


class _Failure(NamedTuple):
    """Why some records are not with the broker."""

    error: BaseException
    records: Sequence[Outgoing]


class PublishFailed(Exception):
    """Some records of a batch did not reach the broker; others may have.

    Transient (`permanent` is false): publish the whole batch again, then acknowledge. Permanent: a record is too large
    or its topic is forbidden; sending it again cannot help.
    """

    def __init__(self, failed: int, of: int, cause: BaseException, records: Sequence[Outgoing] = ()) -> None:
        super().__init__(f"{failed} of {of} records were not published: {type(cause).__name__}: {cause}")
        self.failed, self.of = failed, of
        self.records = records
        """Those that were not published; none where it may be any."""
        self.permanent = isinstance(cause, _PERMANENT)
        self.away = not isinstance(cause, UnknownTopicOrPartitionError)
        """Whether brokers were away or refused; they do answer where they say that there is no such topic."""
        lasting = "too_large" if isinstance(cause, _TOO_LARGE) else "refused"
        self.kind = lasting if self.permanent else "away" if self.away else "unknown_topic"
        """Of `FAILED`."""


Told = Callable[[float, int, PublishFailed | None], object]


class Publisher:
    """An idempotent producer with `acks=all` that answers for whole batches.

    A record that could not be delivered breaks the sequence that idempotence counts on, so after a failure all calls
    that use the producer fail, and the next one starts a new one. Calls may overlap; the order within a partition is
    that of the calls, as long as none failed.
    """

    def __init__(
        self,
        client_options: Mapping[str, Any],
        *,
        max_request_bytes: int = 1_048_576,
        idempotent: bool = True,
        told: Told = lambda seconds, records, error: None,
    ) -> None:
        """`client_options` are aiokafka's: address, name, encryption, authentication, request timeout.

        Without `idempotent` a retried request may write a record twice; only for brokers that cannot do better.
        `told` hears how long each publication took, of how many records, and how it failed.
        """
        self._told = told
        self._client_options = client_options
        self._options = {**client_options, "max_request_size": max_request_bytes}
        self._idempotent = idempotent
        self._producer: Any = None
        self._starting = asyncio.Lock()
        self._handing_over = asyncio.Lock()

    async def start(self) -> None:
        """Connect.

        Raises:
            aiokafka.errors.KafkaConnectionError: no broker answered; the process exits and is started again.
        """
        await self._ready()

    async def stop(self) -> None:
        """Send what is buffered, if that takes only seconds, and disconnect."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await _close(producer)

    async def send_all(
        self, records: Iterable[Outgoing], *, still_waiting: Callable[[str], None] | None = None
    ) -> None:
        """Publish the records in order and return when all in-sync replicas have every one.

        While the brokers are away it waits, without limit, and they are published once when they are back;
        `still_waiting(reason)` is called every few seconds at which they are seen to be (`unit.retrying` fits).

        Raises:
            PublishFailed: see there; nothing may be acknowledged upstream.
        """
        if not (batch := list(records)):
            return
        began_s = monotonic()
        try:
            await self._send(batch, still_waiting)
        except PublishFailed as error:
            self._told(monotonic() - began_s, len(batch), error)
            raise
        self._told(monotonic() - began_s, len(batch), None)

    async def _send(self, batch: Sequence[Outgoing], still_waiting: Callable[[str], None] | None) -> None:
        """See `send_all`."""
        with _telling(still_waiting, self._absence()):
            try:
                producer = await self._ready()
            except (KafkaError, OSError, TimeoutError) as error:
                raise PublishFailed(len(batch), len(batch), error) from error
            async with self._handing_over:  # or a call overtakes one that waits for another partition's turn
                if producer is not self._producer:
                    raise PublishFailed(len(batch), len(batch), ProducerClosed())
                pending, failures = await _hand_over(producer, batch, self._options["max_request_size"])
            refused = await _acknowledged(pending)
        if refused or not all(isinstance(failure.error, MessageSizeTooLargeError) for failure in failures):
            await self._discard(producer)
        failures += refused
        if again := _smaller(failures):
            await self._send(again, still_waiting)
        elif failures:
            failed = [record for failure in failures for record in failure.records]
            raise PublishFailed(len(failed), len(batch), failures[0].error, failed) from failures[0].error

    def _absence(self) -> Callable[[], Awaitable[str | None]]:
        """A look at what keeps the brokers from acknowledging; None where nothing does that can be seen."""
        tries = 1

        async def look() -> str | None:
            nonlocal tries
            if (producer := self._producer) is None:  # being started, which ends with an error of its own
                return None
            if not await answer(producer.client, self._client_options):
                return "brokers do not answer"
            batches, before = _unacknowledged(producer), tries
            tries = max((batch.retry_count for batch in batches), default=1)
            if any(producer.client.cluster.leader_for_partition(batch.tp) in (None, -1) for batch in batches):
                return "a partition has no leader"
            return "brokers refuse records, or do not acknowledge them" if tries > before else None

        return look

    async def written(self) -> None:
        """Return when what was handed over is with the sockets, or does not get there at once."""
        turns = 0
        while turns < _WRITE_TURNS or (turns < _MOST_TURNS and self._waits()):
            await asyncio.sleep(0)
            turns += 1

    def _waits(self) -> bool:
        return self._producer is not None and bool(self._producer._message_accumulator._batches)

    async def missing(self, topics: Collection[str]) -> set[str]:
        """Those of some topics that the brokers do not have, or do not show to this client.

        Raises:
            PublishFailed: no broker answers.
        """
        if not topics:
            return set()
        try:
            client = (await self._ready()).client
            unknown = {topic for topic in topics if client.cluster.partitions_for_topic(topic) is None}
            if unknown:
                await asyncio.gather(*map(client.add_topic, unknown))  # asks for all of them
                if not await answer(client, self._client_options):
                    raise KafkaConnectionError("no broker answers")
        except (KafkaError, OSError, TimeoutError) as error:
            raise PublishFailed(0, len(topics), error) from error
        return {topic for topic in unknown if client.cluster.partitions_for_topic(topic) is None}

    async def partitions(self, topic: str) -> set[int]:
        """The partitions of a topic; asks the broker when they are not known yet."""
        return set(await (await self._ready()).partitions_for(topic))

    async def _ready(self) -> Any:
        async with self._starting:
            if self._producer is None:
                producer = AIOKafkaProducer(
                    **self._options,
                    acks="all",
                    enable_idempotence=self._idempotent,
                    linger_ms=0,
                    max_batch_size=_PACKET_BYTES,
                )
                try:
                    await asyncio.wait_for(producer.start(), _START_S)
                except BaseException:
                    await _close(producer)
                    raise
                self._producer = producer
            return self._producer

    async def _discard(self, producer: Any) -> None:
        if self._producer is producer:
            self._producer = None
            await _close(producer)


async def _hand_over(producer: Any, batch: Sequence[Outgoing], most_bytes: int) -> tuple[list[_Packet], list[_Failure]]:
    """Give all records to the producer; returns what was handed over, and what went wrong with the others.

    They are packed here, one future per packet: a call and a future per record cost three times as much.
    """
    fitting = []
    failures: list[_Failure] = []
    for record in batch:
        size = DefaultRecordBatchBuilder.estimate_size_in_bytes(record.key, record.value, list(record.headers))
        if size <= most_bytes:
            fitting.append(record)
        else:
            failures.append(_Failure(MessageSizeTooLargeError(f"{size} bytes, at most {most_bytes}"), [record]))
    pending: list[_Packet] = []
    try:
        for (topic, partition), records in (await _placed(producer, fitting)).items():
            for packet, held in _packets(producer, records):
                pending.append(_Packet(await producer.send_batch(packet, topic, partition=partition), held))
    except (KafkaError, OSError) as error:
        # the buffer is full for a whole request timeout: the others would wait as long, each
        failures.append(_Failure(error, fitting[sum(len(packet.records) for packet in pending) :]))
    return pending, failures


async def _acknowledged(pending: Sequence[_Packet]) -> list[_Failure]:
    """Wait until the broker took or refused each packet; returns what it refused."""
    if pending:
        await asyncio.wait({packet.future for packet in pending})
    return [_Failure(fault, packet.records) for packet in pending if (fault := packet.future.exception())]


def _smaller(failures: Sequence[_Failure]) -> list[Outgoing]:
    """What to publish in place of records that topics do not take, if that is all that went wrong and will help."""
    failed = [record for failure in failures for record in failure.records]
    if any(not isinstance(failure.error, _TOO_LARGE) for failure in failures) or not any(r.smaller for r in failed):
        return []
    return [record.smaller or record for record in failed]


@contextmanager
def _telling(still_waiting: Callable[[str], None] | None, look: Callable[[], Awaitable[str | None]]) -> Iterator[None]:
    """Look every few seconds until the end of the block, and tell what is away."""
    if still_waiting is None:
        yield
        return
    looking: list[asyncio.Task[None]] = []

    async def tell() -> None:
        while True:
            if (away := await look()) is not None:
                still_waiting(away)
            await asyncio.sleep(_TELL_S)

    timer = asyncio.get_running_loop().call_later(_TELL_S, lambda: looking.append(asyncio.ensure_future(tell())))
    try:
        yield
    finally:
        timer.cancel()
        for task in looking:
            task.cancel()


def _unacknowledged(producer: Any) -> list[Any]:
    accumulator = producer._message_accumulator
    return [*accumulator._pending_batches, *(batch for batches in accumulator._batches.values() for batch in batches)]


async def _placed(producer: Any, records: Sequence[Outgoing]) -> dict[tuple[str, int], list[Outgoing]]:
    """The records of each partition, in order; where none is named, murmur2 of the key chooses, as everywhere."""
    known = {topic: sorted(await producer.partitions_for(topic)) for topic in {record.topic for record in records}}
    hashes = murmur2([record.key or b"" for record in records]).tolist() if records else []
    placed: dict[tuple[str, int], list[Outgoing]] = {}
    for record, number in zip(records, hashes, strict=True):
        partitions, partition = known[record.topic], record.partition
        if partition is None:
            partition = partitions[number % len(partitions)]
        placed.setdefault((record.topic, partition), []).append(record)
    return placed


def _packets(producer: Any, records: Sequence[Outgoing]) -> Iterator[tuple[Any, Sequence[Outgoing]]]:
    """Records of one partition as Kafka's record batches, each with those that it holds."""
    packet, begin = producer.create_batch(), 0
    for n, record in enumerate(records):
        fields = {"timestamp": None, "key": record.key, "value": record.value, "headers": list(record.headers)}
        if packet.append(**fields) is None:
            yield packet, records[begin:n]
            packet, begin = producer.create_batch(), n
            packet.append(**fields)
    packet.close()
    yield packet, records[begin:]


async def _close(producer: Any) -> None:
    """Stop a producer; one whose brokers are away would wait for them for ever. Who still waits for it hears of it."""
    for stop in (producer.stop, producer._sender.close, producer.client.close):
        with suppress(KafkaError, OSError, TimeoutError):
            await asyncio.wait_for(stop(), _CLOSE_S)
            if stop == producer.stop:
                break
    producer._message_accumulator.fail_all(ProducerClosed())
    producer.client.force_metadata_update = _never_again  # nobody would answer
    if (metadata := producer.client._md_update_fut) is not None and not metadata.done():
        metadata.set_exception(ProducerClosed())


def _never_again() -> Any:
    raise ProducerClosed
