"""A header's name may be any bytes: its batch is read, and what stands around it comes once."""

from typing import Any, cast

import pytest
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from aiokafka.structs import TopicPartition

import streams.transport  # noqa: F401  (from here on they are read)

HERE = TopicPartition("events", 0)
NAMES = [b"", b"trace", b"\xff\xfe", "ü".encode("utf-16"), b"ok"]


class Name(str):
    """A name that is written as other bytes."""

    written: bytes

    def encode(self, *_: object) -> bytes:
        return self.written


def named(written: bytes) -> Name:
    name = Name("x")
    name.written = written
    return name


def batch(first: int, names: list[bytes], codec: int = 0) -> bytes:
    """A record for each name, which is its value too."""
    builder = _DefaultRecordBatchBuilderPy(
        magic=2, compression_type=codec, is_transactional=0, producer_id=-1, producer_epoch=-1, base_sequence=-1,
        batch_size=1 << 20,
    )  # fmt: skip
    for n, name in enumerate(names):
        headers = [(cast(str, named(name)), b"said"), ("none", None)]
        assert builder.append(n, timestamp=1_000 + n, key=None, value=name, headers=headers)
    whole = bytearray(builder.build())
    whole[:8] = first.to_bytes(8, "big")
    return bytes(whole)


class State:
    """Stands in for what a consumer knows of the partition."""

    active, paused = True, False

    def __init__(self, position: int) -> None:
        self.position = position

    def state_value(self, _place: TopicPartition) -> "State":
        return self

    def consumed_to(self, position: int) -> None:
        self.position = position


def fetched(data: bytes, *, start: int = 0) -> fetcher.FetchResult:
    """As the fetcher makes it of an answer."""
    partition = fetcher.PartitionRecords(
        HERE, fetcher.MemoryRecords(data), [], start, None, None, True, "read_committed"
    )
    return fetcher.FetchResult(HERE, partition_records=partition, assignment=State(start), backoff=0.1)


@pytest.mark.parametrize("codec", [0, 1, 2, 3, 4], ids=["plain", "gzip", "snappy", "lz4", "zstd"])
@pytest.mark.parametrize("most", [None, 1, 2, 100])
def test_every_record_comes_once_whatever_its_header_is_called(codec: int, most: int | None) -> None:
    data = batch(0, [b"a", b"b"]) + batch(5, NAMES, codec) + batch(10, [b"\xff"], codec) + batch(11, [b"z"])
    result, records = fetched(data), list[Any]()
    while result.has_more():
        records += result.getall(most)
    assert [record.offset for record in records] == [0, 1, 5, 6, 7, 8, 9, 10, 11]
    assert [record.value for record in records] == [b"a", b"b", *NAMES, b"\xff", b"z"]
    spelled = ["a", "b", "", "trace", "\\xff\\xfe", "\\xff\\xfe\\xfc\x00", "ok", "\\xff", "z"]
    assert [record.headers for record in records] == [((name, b"said"), ("none", None)) for name in spelled]
    assert [record.timestamp for record in records][2:7] == [1_000, 1_001, 1_002, 1_003, 1_004]


def test_one_by_one_from_the_middle() -> None:
    result, values = fetched(batch(0, [b"a", b"\xff", b"c"]) + batch(3, [b"d"]), start=1), list[bytes]()
    while result.has_more():
        if (record := result.getone()) is not None:
            values.append(record.value)
    assert values == [b"\xff", b"c", b"d"]
