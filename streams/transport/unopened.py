r"""Batches that would become too large unpacked: told by the heads of their blocks, and not opened.

A few kilobytes of zstd can be gigabytes of one letter. Whoever opened such a batch would be killed for memory, and so
would the next one that is given its partition. Its records are handed out as what they are, too large, without keys,
values and headers.

>>> import cramjam
>>> len(bomb := bytes(cramjam.zstd.compress(b"a" * 1_000_000))), most_bytes(4, bomb)
(50, 1000000)
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

MOST_BYTES = 64 << 20
"""Of all records of a batch, unpacked. Producers pack one to sixteen MiB at a time."""
_COMPRESSION, _BEFORE, _MAGIC, _ATTRIBUTES, _RECORDS, _HEAD = 0x07, 12, 16, 21, slice(57, 61), 61
"""Where a batch of version 2 says how it is packed, its version, its attributes and how many records it has."""
_ZSTD, _SKIPPABLE, _LZ4 = 0xFD2FB528, 0x184D2A5, 0x184D2204
_GZIP, _GZIP_RATIO = b"\x1f\x8b\x08", 1_032
_ZSTD_BLOCK, _RAW, _REPEATED = 128 << 10, 0, 1


class Unopened(bytes):
    """In place of a record's value: the batch as it came, as long as it may become."""

    may_be: int

    def __len__(self) -> int:
        return self.may_be


class _Record(NamedTuple):
    offset: int
    timestamp: int
    timestamp_type: int
    value: Unopened
    key: None = None
    headers: tuple[()] = ()
    checksum: None = None


class Sealed:
    """A batch that is not opened, read like any other."""

    def __init__(self, batch: Any, packed: bytes, may_be: int) -> None:
        """`batch` is aiokafka's, of which only the head is asked."""
        self._batch, self._value = batch, Unopened(packed)
        self._value.may_be = may_be
        self._records = min(_whole(packed[_RECORDS]), batch.last_offset_delta + 1)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __iter__(self) -> Iterator[_Record]:
        batch = self._batch
        for offset in range(batch.next_offset - self._records, batch.next_offset):
            yield _Record(offset, batch.max_timestamp, batch.timestamp_type, self._value)


def sealed(batch: Any, fetched: bytes, at: int = 0) -> Any:
    """A batch, or what stands for it where it would become too large. Those before version 2 are as they are.

    Args:
        batch: aiokafka's.
        fetched: what it was read from.
        at: where it begins there.
    """
    if fetched[at + _MAGIC] < 2 or not (codec := fetched[at + _ATTRIBUTES + 1] & _COMPRESSION):
        return batch
    packed = fetched[at : end_of(fetched, at)]
    may_be = most_bytes(codec, inside := packed[_HEAD:])
    return batch if may_be <= MOST_BYTES or _fits(codec, inside) else Sealed(batch, packed, may_be)


def end_of(fetched: bytes, at: int) -> int:
    """Where a batch ends that begins there: it says its length, without that and its offset."""
    return at + _BEFORE + _whole(fetched[at + 8 : at + _BEFORE])


def _fits(codec: int, packed: bytes) -> bool:
    """Opened into as much room as there may be: blocks may be smaller than their heads allow."""
    try:
        import cramjam
    except ImportError:
        return True  # whoever opens it says which package is missing
    try:
        getattr(cramjam, _NAMES[codec]).decompress_into(packed, bytearray(MOST_BYTES))
    except cramjam.DecompressionError:
        return False
    return True


def most_bytes(codec: int, packed: bytes) -> int:
    """How large something may become that is packed by one of Kafka's codecs; 0 for what is not read here.

    Snappy never makes more than 21 bytes of one, so that a topic's largest batch stays below every bound.
    """
    read = _SIZES.get(codec)
    try:
        return read(packed) if read else 0
    except IndexError:  # cut short: whoever opens it says so
        return 0


def _gzip(packed: bytes) -> int:
    """As its end says, or, where there seem to be several in a row, as much as ever comes of so many bytes."""
    told = int.from_bytes(packed[-4:], "little")
    return told if packed.find(_GZIP, 1) < 0 else max(told, _GZIP_RATIO * len(packed))


def _zstd(packed: bytes) -> int:
    at = size = 0
    while at < len(packed):
        magic = _little(packed, at, 4)
        if magic >> 4 == _SKIPPABLE:
            at += 8 + _little(packed, at + 4, 4)
            continue
        if magic != _ZSTD:
            return size
        at, told = _zstd_frame(packed, at)
        size += told
    return size


def _zstd_frame(packed: bytes, at: int) -> tuple[int, int]:
    """Where a frame ends, and how much is in it."""
    told = packed[at + 4]
    alone, size = told >> 5 & 1, 0
    at += 5 + (1 - alone) + (0, 1, 2, 4)[told & 3] + (alone, 2, 4, 8)[told >> 6]
    last = False
    while not last:
        head = _little(packed, at, 3)
        last, kind, length = bool(head & 1), head >> 1 & 3, head >> 3
        size += length if kind in (_RAW, _REPEATED) else _ZSTD_BLOCK
        at += 3 + (1 if kind == _REPEATED else length)
    return at + 4 * (told >> 2 & 1), size


def _lz4(packed: bytes) -> int:
    at = size = 0
    while at < len(packed) and _little(packed, at, 4) == _LZ4:
        flags, block = packed[at + 4], 1 << (8 + 2 * (packed[at + 5] >> 4 & 7))
        at += 7 + 8 * (flags >> 3 & 1) + 4 * (flags & 1)
        while head := _little(packed, at, 4):
            length = head & 0x7FFFFFFF
            size += length if head >> 31 else min(block, 255 * length)
            at += 4 + length + 4 * (flags >> 4 & 1)
        at += 4 + 4 * (flags >> 2 & 1)
    return size


def _little(packed: bytes, at: int, count: int) -> int:
    if at + count > len(packed):
        raise IndexError
    return int.from_bytes(packed[at : at + count], "little")


def _whole(packed: bytes) -> int:
    return int.from_bytes(packed, "big")


_SIZES: Mapping[int, Callable[[bytes], int]] = {1: _gzip, 3: _lz4, 4: _zstd}
_NAMES = {1: "gzip", 3: "lz4", 4: "zstd"}
"""By Kafka's numbers of codecs."""
