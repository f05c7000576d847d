"""Records that were fetched and not delivered yet. No I/O, no Faust."""

import threading
from collections.abc import Collection, Mapping
from typing import Any

from embeddings.events import Source


class Ahead:
    """Records by partition, in a queue of partitions. One thread adds, another takes."""

    def __init__(self) -> None:
        self._records: dict[Source, list[Any]] = {}
        self._lock = threading.Lock()

    def __contains__(self, source: Source) -> bool:
        return source in self._records

    def counts(self) -> dict[Source, int]:
        """Records of each partition that has any."""
        with self._lock:
            return {source: len(records) for source, records in self._records.items()}

    def first_ms(self, source: Source) -> int:
        """When the first record of a partition was written, by its timestamp; 0 where there is none."""
        with self._lock:
            records = self._records.get(source)
            return int(records[0].timestamp) if records else 0

    def add(self, fetched: Mapping[Any, list[Any]]) -> None:
        """Append to each partition what came of it."""
        with self._lock:
            for tp, records in fetched.items():
                source = Source(*tp)
                held = self._records.get(source)
                self._records[source] = held + records if held else records

    def take(self, sources: Collection[Any], most: int) -> dict[Source, list[Any]]:
        """Remove at most so many records of some partitions; one that has more goes to the end of the queue."""
        taken: dict[Source, list[Any]] = {}
        with self._lock:
            for source in [source for source in self._records if source in sources]:
                records = self._records.pop(source)
                taken[source], more = records[:most], records[most:]
                most -= len(taken[source])
                if more:
                    self._records[source] = more
                if not most:
                    break
        return taken

    def drop(self, sources: Collection[Source] | None = None) -> None:
        """Forget what was fetched of some partitions, or of all."""
        with self._lock:
            for source in list(self._records) if sources is None else sources:
                self._records.pop(source, None)
