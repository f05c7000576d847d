r"""Header names of any bytes: Kafka carries them, aiokafka decodes them as UTF-8 and fails with the batch they are in.

Such a batch would be fetched and would fail again, for every reader of the topic, without end. What was fetched is
kept, and read a second time by aiokafka's own slower reader, with what is no UTF-8 in a name spelled `\xff`.

Leans on private names of aiokafka 0.14.0: how fetched batches become records.
"""

from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords, _MemoryRecordsPy

from streams.transport.unopened import end_of, sealed


class _Kept(MemoryRecords):  # type: ignore[misc]  # aiokafka has no types
    """What was fetched of a partition, with its bytes; batches that would become too large stay packed."""

    def __init__(self, fetched: bytes) -> None:
        super().__init__(fetched)
        self.fetched, self._at = fetched, 0

    def next_batch(self) -> Any:
        """The next one, None where there is none."""
        if (batch := super().next_batch()) is None:
            return None
        at, self._at = self._at, end_of(self.fetched, self._at)
        return sealed(batch, self.fetched, at)


class _Text(bytearray):
    """Bytes whose parts decode whatever they are."""

    def __getitem__(self, at: Any) -> Any:
        part = super().__getitem__(at)
        return _Text(part) if isinstance(at, slice) else part

    def decode(self, encoding: str = "utf-8", errors: str = "backslashreplace") -> str:
        return super().decode(encoding, errors)


class _AnyNames(_DefaultRecordBatchPy):  # type: ignore[misc]
    """A batch whose header names may be any bytes."""

    def _maybe_uncompress(self) -> None:
        super()._maybe_uncompress()
        self._buffer: bytearray = _Text(self._buffer)


class _Slowly(_MemoryRecordsPy):  # type: ignore[misc]
    """Reads what was fetched in Python. Batches before version 2 have no headers."""

    def next_batch(self) -> Any:
        here = self._next_slice
        batch = super().next_batch()
        return sealed(_AnyNames(here), bytes(here)) if here is not None and batch.magic >= 2 else batch


class _AnyPartition(fetcher.PartitionRecords):  # type: ignore[misc]
    """A partition's records, which can be read once more."""

    def __init__(self, tp: Any, records: Any, aborted: Any, fetch_offset: int, *options: Any) -> None:
        self._again = (records, list(aborted or ()), options)
        super().__init__(tp, records, aborted, fetch_offset, *options)

    def slowly(self, offset: int) -> "_AnyPartition":
        """The records from an offset on, whatever their header names are."""
        records, aborted, options = self._again
        return _SlowPartition(self._tp, _Slowly(records.fetched), aborted, offset, *options)


class _SlowPartition(_AnyPartition):
    """Passes over batches that were read, which would take the position back to their ends."""

    _next = 0

    @property
    def next_fetch_offset(self) -> int:
        """The offset after what was read."""
        return self._next

    @next_fetch_offset.setter
    def next_fetch_offset(self, offset: int) -> None:
        self._next = max(self._next, offset)


class _Result(fetcher.FetchResult):  # type: ignore[misc]
    """Hands out the records of a partition."""

    def getone(self) -> Any:
        return self._read(super().getone)

    def getall(self, max_records: int | None = None) -> Any:
        return self._read(lambda: super(_Result, self).getall(max_records))

    def _read(self, read: Any) -> Any:
        records: Any = self._partition_records
        offset = records.next_fetch_offset if records is not None else 0
        try:
            return read()
        except UnicodeDecodeError:
            self._partition_records: Any = records.slowly(offset)
            return read()


def accept_any() -> None:
    """From now on every consumer of this process reads such records."""
    fetcher.MemoryRecords = _Kept
    fetcher.PartitionRecords = _AnyPartition
    fetcher.FetchResult = _Result
