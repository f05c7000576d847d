"""Publishing what a batch caused, and knowing that the broker has it.

The idempotent aiokafka producer is called directly, with records packed here: Faust's `topic.send` costs six times as
much, and a result that nobody awaits is lost silently there.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    InvalidTopicError,
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
)
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from embeddings.ids import murmur2
from streams.contract.messages import Outgoing

_PERMANENT = (InvalidTopicError, MessageSizeTooLargeError, RecordListTooLargeError, TopicAuthorizationFailedError)
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
    records: int


class PublishFailed(Exception):
    """Some records of a batch did not reach the broker; others may have.

    Transient (`permanent` is false): publish the whole batch again, then acknowledge. Permanent: a record is too large
    or its topic is forbidden; sending it again cannot help.
    """

    def __init__(self, failed: int, of: int, cause: BaseException) -> None:
        super().__init__(f"{failed} of {of} records were not published: {type(cause).__name__}: {cause}")
        self.failed, self.of = failed, of
        self.permanent = isinstance(cause, _PERMANENT)


class Publisher:
    """An idempotent producer with `acks=all` that answers for whole batches.

    A record that could not be delivered breaks the sequence that idempotence counts on, so after a failure the next
    call starts a new producer. Calls may overlap; the order within a partition is that of the calls, as long as none
    failed.
    """

    def __init__(
        self, client_options: Mapping[str, Any], *, max_request_bytes: int = 1_048_576, idempotent: bool = True
    ) -> None:
        """`client_options` are aiokafka's: address, name, encryption, authentication, request timeout.

        Without `idempotent` a retried request may write a record twice; only for brokers that cannot do better.
        """
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
        `still_waiting(reason)` is called every few seconds meanwhile (`unit.retrying` fits).

        Raises:
            PublishFailed: see there; nothing may be acknowledged upstream.
        """
        batch = list(records)
        if not batch:
            return
        with _telling(still_waiting):
            try:
                producer = await self._ready()
            except (KafkaError, OSError, TimeoutError) as error:
                raise PublishFailed(len(batch), len(batch), error) from error
            async with self._handing_over:  # or a call overtakes one that waits for another partition's turn
                pending, errors = await _hand_over(producer, batch, self._options["max_request_size"])
            errors += await _acknowledged(pending)
        if not errors:
            return
        if not all(isinstance(error, MessageSizeTooLargeError) for error in errors):
            await self._discard(producer)
        raise PublishFailed(len(errors), len(batch), errors[0]) from errors[0]

    async def written(self) -> None:
        """Return when what was handed over is with the sockets, or does not get there at once."""
        turns = 0
        while turns < _WRITE_TURNS or (turns < _MOST_TURNS and self._waits()):
            await asyncio.sleep(0)
            turns += 1

    def _waits(self) -> bool:
        return self._producer is not None and bool(self._producer._message_accumulator._batches)

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


async def _hand_over(
    producer: Any, batch: Sequence[Outgoing], most_bytes: int
) -> tuple[list[_Packet], list[BaseException]]:
    """Give all records to the producer; returns what was handed over, and what went wrong with the others.

    They are packed here, one future per packet: a call and a future per record cost three times as much.
    """
    fitting = []
    errors: list[BaseException] = []
    for record in batch:
        size = DefaultRecordBatchBuilder.estimate_size_in_bytes(record.key, record.value, list(record.headers))
        if size <= most_bytes:
            fitting.append(record)
        else:
            errors.append(MessageSizeTooLargeError(f"{size} bytes, at most {most_bytes}"))
    pending: list[_Packet] = []
    try:
        for (topic, partition), records in (await _placed(producer, fitting)).items():
            for packet, count in _packets(producer, records):
                pending.append(_Packet(await producer.send_batch(packet, topic, partition=partition), count))
    except (KafkaError, OSError) as error:
        errors.append(error)  # the buffer is full for a whole request timeout: the others would wait as long, each
    return pending, errors


async def _acknowledged(pending: Sequence[_Packet]) -> list[BaseException]:
    """Wait until the broker took or refused each packet; returns what went wrong, once for each record."""
    if pending:
        await asyncio.wait({packet.future for packet in pending})
    return [fault for packet in pending if (fault := packet.future.exception()) for _ in range(packet.records)]


@contextmanager
def _telling(still_waiting: Callable[[str], None] | None) -> Iterator[None]:
    """Call `still_waiting` every few seconds until the end of the block."""
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle

    def tell() -> None:
        nonlocal timer
        timer = loop.call_later(_TELL_S, tell)
        if still_waiting is not None:
            still_waiting("brokers do not acknowledge")

    timer = loop.call_later(_TELL_S, tell)
    try:
        yield
    finally:
        timer.cancel()


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


def _packets(producer: Any, records: Sequence[Outgoing]) -> Iterator[tuple[Any, int]]:
    """Records of one partition as Kafka's record batches, each with how many it holds."""
    packet, count = producer.create_batch(), 0
    for record in records:
        fields = {"timestamp": None, "key": record.key, "value": record.value, "headers": list(record.headers)}
        if packet.append(**fields) is None:
            yield packet, count
            packet, count = producer.create_batch(), 0
            packet.append(**fields)
        count += 1
    packet.close()
    yield packet, count


async def _close(producer: Any) -> None:
    """Stop a producer; one whose brokers are away would wait for them for ever."""
    with suppress(KafkaError, OSError, TimeoutError):
        await asyncio.wait_for(producer.stop(), _CLOSE_S)
        return
    with suppress(KafkaError, OSError, TimeoutError):
        await asyncio.wait_for(producer._sender.close(), _CLOSE_S)
    with suppress(KafkaError, OSError, TimeoutError):
        await asyncio.wait_for(producer.client.close(), _CLOSE_S)
