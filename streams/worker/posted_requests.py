"""Requests posted over HTTP: answered in place by what answers the requests lane, for all who wait at a time.

A request has no place in a log, so its name gives it one: `place_of` user and request id. Slates and decisions about
ads are called after it, as elsewhere after topic, partition and offset: the same request id again gets the same slate
id, and the decisions that stand.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import xxhash

from embeddings.events import Source
from embeddings.ids import murmur2
from streams.contract.deadletters import DeadLetter
from streams.contract.messages import Outgoing, Part
from streams.contract.posted import Posted
from streams.process.gathering import Together
from streams.process.metrics import WorkerMetrics
from streams.process.threads import Thread
from streams.serving.ad_funnel import POSTED
from streams.serving.requests import Answerer
from streams.serving.slates import PublishedSlate, ad_records
from streams.settings import Settings
from streams.worker.outbox import Outbox
from streams.worker.requests_lane import count_answers, count_funnel, taught
from streams.worker.shown import Shown

_MOST = 64


class _Named(msgspec.Struct):
    user_id: Any = None
    request_id: Any = None


_decode_named = msgspec.json.Decoder(_Named).decode


def place_of(user_id: str, request_id: str, partitions: int) -> tuple[Source, int]:
    """Where a request would lie: in the partition of its user, at an offset that only it has, by all chances."""
    name, asked = user_id.encode(), request_id.encode()
    partition = int(murmur2([name])[0]) % partitions
    both = b"\0".join(each.replace(b"\0", b"\0\xff") for each in (name, asked))  # no text has a byte 255
    return Source(POSTED, partition), xxhash.xxh3_64_intdigest(both) >> 1


@dataclass(slots=True, kw_only=True)
class PostedRequests:
    """Answers in a thread of its own; of one event loop. What `answerer` is made of, no other thread uses."""

    answerer: Answerer
    outbox: Outbox
    settings: Settings
    metrics: WorkerMetrics
    shown: Shown
    _thread: Thread = field(init=False, default_factory=lambda: Thread("posted-requests"))
    _together: Together[Posted, PublishedSlate | DeadLetter] = field(init=False)

    _out: list[PublishedSlate] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self._together = Together(answer=self._all, most=_MOST)

    async def answer(self, record: Posted) -> PublishedSlate | DeadLetter:
        """The slate, or why the request cannot be read. With decisions about ads, when the topic `ads` has them.

        A slate is counted when it is returned: who gave up, or is told to come again, was shown none.

        Raises:
            BrokersAway, PublishFailed: nobody may show these ads; asked again, the request gets the same.
            Crowded: too many wait.
        """
        slate = await self._together.ask(record)
        if isinstance(slate, PublishedSlate):
            await self.outbox.send(ad_records(slate, self.settings.topics.name("ads")))
            if not self._out:
                asyncio.get_running_loop().call_soon(self._count)  # with all that are returned at this time
            self._out.append(slate)
        return slate

    def _count(self) -> None:
        """Once for all who asked for the same at a time."""
        slates, self._out = {id(slate): slate for slate in self._out}.values(), []
        count_answers(self.metrics, self.shown, list(slates), self.answerer.now_ms())

    async def tell_funnel(self) -> None:
        """Have the ledger told what became of line items, also while no requests come."""
        if self.answerer.ads:
            await self._thread.run(self.answerer.ads.server.tell, ())

    async def _all(self, some: Sequence[Posted]) -> Sequence[PublishedSlate | DeadLetter]:
        answers, told = await self._thread.run(self._answer, some)
        self.outbox.tell(told)
        return answers

    def _answer(self, some: Sequence[Posted]) -> tuple[list[PublishedSlate | DeadLetter], list[Outgoing]]:
        """Who asks twice at a time is answered once; what is another request under the same name, behind the first."""
        places, first = [self._place(record) for record in some], dict[tuple[Source, int], Posted]()
        for place, record in zip(places, some, strict=True):
            first.setdefault(place, record)
        found, told = self._answered(first)
        answers = [found[place] for place in places]
        others = [n for n, record in enumerate(some) if record.value != first[places[n]].value]
        if others:
            later, more = self._answer([some[n] for n in others])
            for n, answer in zip(others, later, strict=True):
                answers[n] = answer
            told += more
        return answers, told

    def _answered(
        self, records: Mapping[tuple[Source, int], Posted]
    ) -> tuple[dict[tuple[Source, int], PublishedSlate | DeadLetter], list[Outgoing]]:
        mine: dict[Source, list[Posted]] = {}
        for (source, offset), record in records.items():
            mine.setdefault(source, []).append(record._replace(offset=offset))
        parts = [Part(source, some, max(one.offset for one in some), -1) for source, some in mine.items()]
        with self.metrics.spans.batch("http", parts):
            slates, dead = self.answerer.respond(parts)
        found: dict[tuple[Source, int], PublishedSlate | DeadLetter] = {(one.source, one.offset): one for one in dead}
        found |= {(slate.trigger.source, slate.trigger.offset): slate for slate in slates}
        count_funnel(self.metrics, self.answerer)
        return found, taught(self.settings, self.answerer, slates)

    def _place(self, record: Posted) -> tuple[Source, int]:
        """By its names; by its bytes where it has none, and so will be refused."""
        try:
            named = _decode_named(record.value or b"")
        except (ValueError, RecursionError):
            named = _Named()
        if isinstance(named.user_id, str) and isinstance(named.request_id, str):
            return place_of(named.user_id, named.request_id, self.settings.topics.partitions)
        return Source(POSTED, 0), xxhash.xxh3_64_intdigest(record.value or b"") >> 1
