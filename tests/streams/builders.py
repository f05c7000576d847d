"""A service without Kafka and Redis around small logs: the real parts, with time passed in.

>>> service = Service(small(), now_ms=NOW_MS)
>>> service.catalogue("a", "b")
>>> answer = service.deliver([an_event(0, "ann", "a")])
>>> [item.item_id for item in slates_of(answer)[0].items]
['b']
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from embeddings.events import CONSENT_ALL, Source
from embeddings.index import build_index
from embeddings.items import ItemFacts, Items
from embeddings.memory import MemoryUserStore, Shelf
from embeddings.snapshots import Snapshot
from ranking.weights import Shape
from streams.contract import observations, records
from streams.contract.consent import Judge
from streams.contract.messages import Part
from streams.contract.observations import Observation
from streams.contract.parsing import Rules
from streams.lab.datasets import Log
from streams.learning.learner import Learner
from streams.serving.live_model import LiveModel, Serving
from streams.serving.pipeline import Answer, Recommender
from streams.serving.requests import Answerer
from streams.serving.scoring import Scorer
from streams.settings import Settings
from streams.transport.logs import Stretch

NOW_MS = 1_750_000_000_000
EVENTS, REQUESTS = Source("events", 0), Source("requests", 0)
DENIED = {"gdpr": 1}


class Raw(NamedTuple):
    """A record as Kafka would deliver it."""

    offset: int
    value: bytes | None
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes]] = ()
    timestamp: int = NOW_MS


def an_event(offset: int, user: str = "ann", item: str | None = "a", kind: str = "play", **fields: Any) -> Raw:
    """Somebody did something, a second after the event of the offset before, unless `event_time` says otherwise."""
    timestamp = fields.pop("timestamp", NOW_MS)
    whole = {"user_id": user, "item_id": item, "type": kind, "event_time": NOW_MS - 1_000_000 + 1000 * offset} | fields
    value = records.encode({name: field for name, field in whole.items() if field is not None})
    return Raw(offset, value, user.encode(), timestamp=timestamp)


def a_request(offset: int, user: str = "ann", **fields: Any) -> Raw:
    """Somebody asks for a slate."""
    return Raw(offset, records.encode({"request_id": f"r{offset}", "user_id": user, **fields}), user.encode())


def a_log(events: int, *, users: int = 12, items: int = 60, seed: int = 0) -> list[Raw]:
    """People who take items of the group they like, now and then something else; some like or skip."""
    draw = np.random.default_rng(seed)
    log = []
    for offset in range(events):
        user = int(draw.integers(users))
        liked = (np.arange(items) % 4) == user % 4
        weight = np.where(liked, 8.0, 1.0) / (1 + np.arange(items))
        item = int(draw.choice(items, p=weight / weight.sum()))
        kind = str(draw.choice(["play", "like", "skip", "view"], p=[0.6, 0.2, 0.1, 0.1]))
        log.append(an_event(offset, f"u{user}", f"i{item:03d}", kind))
    return log


def a_table(events: int, **sizes: int) -> Log:
    """The same as columns, for `evaluate`."""
    rows = [records.decode_event(raw.value) for raw in a_log(events, **sizes) if raw.value]
    names = sorted({row.item_id or "" for row in rows})
    return Log(
        name="small",
        user_R=[row.user_id for row in rows],
        item_R=[row.item_id or "" for row in rows],
        rating_R=np.full(len(rows), 3, np.float32),
        time_s_R=np.array([row.event_time // 1000 for row in rows], np.int64),
        items={name: ItemFacts(name=name, title=name.upper(), categories=("odd",)) for name in names},
    )


def small(**groups: dict[str, Any]) -> Settings:
    """Settings for a small catalogue: slates of 5 out of 20 candidates, narrow vectors."""
    base: dict[str, dict[str, Any]] = {
        "slates": {"size": 5, "candidates": 20, "per_event": "all"},
        "learner": {"dimensions": 8, "neighbours": 10, "refresh_events": 100},
        "observe": {"negatives": 4, "shown": 1.0, "examples_per_s": 1_000},
        "consent": {"default": "grant"},
    }
    return Settings.model_validate({name: base.get(name, {}) | groups.get(name, {}) for name in {*base, *groups}})


def a_learner(settings: Settings | None = None, buckets: int = 1_024) -> Learner:
    """One whose ranking model has rows for no more items than tests have."""
    return Learner(settings or small(), shape=Shape(buckets=buckets))


@dataclass(repr=False)
class Service:
    """One worker and one learner around a store in memory; `deliver` is what an agent does with a batch."""

    settings: Settings = field(default_factory=small)
    now_ms: int = NOW_MS
    shelf: Shelf = field(default_factory=Shelf)
    default_consent: int = CONSENT_ALL
    serving: Serving = field(init=False)
    users: MemoryUserStore = field(init=False)
    recommender: Recommender = field(init=False)
    answerer: Answerer = field(init=False)

    def __post_init__(self) -> None:
        items, width = Items(half_lives=self.settings.half_lives.counters), self.settings.learner.dimensions
        live = LiveModel.empty(items, build_index, width)
        self.serving = Serving(items, build_index, live, now_s=lambda: self.now_ms // 1000)
        self.users = MemoryUserStore(self.shelf, width=width)
        self.users.claim([EVENTS])
        scorer, rules = Scorer(self.serving, self.settings), Rules(judge=Judge(self.default_consent))
        self.recommender = Recommender(
            users=self.users, scorer=scorer, rules=rules, settings=self.settings, now_ms=lambda: self.now_ms
        )
        self.answerer = Answerer(
            users=self.users, scorer=scorer, rules=rules, settings=self.settings, now_ms=lambda: self.now_ms
        )

    @cached_property
    def learner(self) -> Learner:
        """What learns of what is told; most tests have nothing learned."""
        return a_learner(self.settings)

    def catalogue(self, *names: str, **facts: Any) -> None:
        """Let items into the catalogue."""
        self.serving.catalogue([ItemFacts(name=name, added_s=self.now_ms // 1000, **facts) for name in names], [])

    def respond(self, log: Sequence[Raw], committed: int = -1) -> Answer:
        """Answer a batch and store nothing."""
        answer = self.recommender.respond([Part(EVENTS, log, log[-1].offset, committed)])
        self.recommender.tell(answer)
        return answer

    def deliver(self, log: Sequence[Raw], committed: int = -1) -> Answer:
        """Answer a batch and store what it led to."""
        answer = self.respond(log, committed)
        self.recommender.store(self.recommender.keep(answer))
        return answer

    def learn(self, answer: Answer) -> int:
        """Give the learner what an answer tells, and the counters to the worker."""
        rows = sum(self.learner.learn(observation) for observation in told(answer))
        self.serving.count(self.learner.counters.changed())
        return rows

    def live_through(self, log: Sequence[Raw], batch: int = 50) -> None:
        """Deliver and learn a log, then swap in a snapshot of what was learned."""
        for at in range(0, len(log), batch):
            self.learn(self.deliver(log[at : at + batch]))
        self.swap()

    def swap(self) -> None:
        """Build a snapshot and serve it, with the learned ranker however little it has seen."""
        frozen = self.learner.freeze()
        frozen.ranker["learned"] = np.ones(1, np.uint8)
        snapshot, self.learner.factors = frozen.build(self.now_ms)
        self.serving.swap(snapshot)

    def ask(self, *requests: Raw) -> list[records.Slate]:
        """The answers to requests that can all be read."""
        slates, dead = self.answerer.respond([Part(REQUESTS, requests, requests[-1].offset, -1)])
        assert not dead
        return [records.decode_slate(slate.value) for slate in slates]

    def states(self, *users: str) -> list[bytes | None]:
        """All that is stored of people, to the bit: states, then what was seen before."""
        return [self.shelf.get((kind, user)) for kind in ("u", "s") for user in users]


def a_snapshot(now_ms: int) -> Snapshot:
    """What was learned of a few events of three items."""
    service = Service()
    service.catalogue("a", "b", "c")
    service.live_through(a_log(30, items=3))
    return service.learner.freeze().build(now_ms)[0]


def told(answer: Answer) -> list[Observation]:
    """What an answer tells the learner."""
    return [observations.decode(value) for _, value in answer.told]


def slates_of(answer: Answer) -> list[records.Slate]:
    """The slates of an answer, as a consumer reads them."""
    return [records.decode_slate(slate.value) for slate in answer.slates]


def shown(slate: records.Slate) -> list[str]:
    """The items of a slate, best first."""
    return [item.item_id for item in slate.items]


def committed(offsets: Mapping[Source, int]) -> dict[Source, Stretch]:
    """Partitions of which nothing but their committed offsets is known."""
    return {source: Stretch(committed=offset) for source, offset in offsets.items()}
