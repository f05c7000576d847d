"""Looking at partitions that are paused for a bad deploy, and letting them go on: their marks say it, in the store."""

from collections.abc import Sequence
from contextlib import closing

from embeddings.events import Source
from embeddings.store import PartitionMark
from streams.settings import Settings
from streams.worker.paused import sentence
from streams.worker.stores import user_store


def release(settings: Settings, partitions: Sequence[int] | None = None) -> dict[Source, PartitionMark]:
    """Let paused partitions of `events` go on, all or some; returns their marks as they were.

    Raises:
        StoreUnavailable: some may have been released; try again.
    """
    with closing(user_store(settings)) as store:
        return store.go_on(_events(settings, partitions))


def said(settings: Settings) -> str | None:
    """What an operator must know of all workers' paused partitions, or None.

    Raises:
        StoreUnavailable: the store does not answer.
    """
    with closing(user_store(settings)) as store:
        marks = store.marks(_events(settings))
    return "; ".join(sentence(source, mark) for source, mark in marks.items() if mark.run.paused) or None


def _events(settings: Settings, partitions: Sequence[int] | None = None) -> list[Source]:
    numbers = range(settings.topics.partitions) if partitions is None else partitions
    return [Source(settings.topics.name("events"), number) for number in numbers]
