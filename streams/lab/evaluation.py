"""`marquee evaluate`: a log through the service's own code, in process: every event is ranked, then learned.

The log goes through `Recommender.respond`, its observations through `Learner.learn`, snapshots through
`Serving.swap`, as in production; only Kafka, Redis and the clock are replaced: time is the log's. Within a batch user
states are fresh at every event, item counts and weights are those of before the batch, vectors and neighbour lists
those of the last snapshot.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray

from embeddings.events import CONSENT_ALL, Source
from embeddings.items import Items
from embeddings.memory import MemoryUserStore
from ranking.slate import best
from streams.contract import observations
from streams.contract.consent import Judge
from streams.contract.fields import LAST_KEPT_MS
from streams.contract.messages import Part
from streams.contract.parsing import Rules
from streams.lab.baselines import MISS, NOT_SCORED, Quality
from streams.lab.datasets import Log
from streams.lab.replay import event_records
from streams.learning.learner import Learner
from streams.serving.live_model import LiveModel, Serving, index_builder
from streams.serving.pipeline import Answer, Recommender
from streams.serving.rank import rank
from streams.serving.scoring import Scorer
from streams.settings import Settings

_PLACES, _EARLY = 20, 5
_SOURCE = Source("evaluate", 0)
_REPORT_EVERY = 10_000


@dataclass(frozen=True, slots=True)
class LogRecord:
    """A record of a log that never saw a broker."""

    offset: int
    timestamp: int
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a run measured: the rank of every event (0-based), and how many snapshots were swapped in on the way.

    `event_R` is the same as of the moment of the event before, when slates of events are written. `first_R` is that of
    people's first five events, the first one of all too; `NOT_SCORED` elsewhere.
    """

    rank_R: NDArray[np.float64]
    event_R: NDArray[np.float64]
    first_R: NDArray[np.float64]
    snapshots: int

    @property
    def quality(self) -> Quality:
        """Recall and NDCG over all scored events."""
        return Quality.of(self.rank_R)

    @property
    def written(self) -> Quality:
        """The same of slates as they are written at the event before."""
        return Quality.of(self.event_R)

    @property
    def newcomers(self) -> Quality:
        """The same of people's first five events."""
        return Quality.of(self.first_R)


@dataclass(slots=True)
class Bench:
    """The service around a log: one store, one item table, one learner, a clock that the log moves."""

    settings: Settings
    log: Log
    now_ms: int = 0
    snapshots: int = 0
    learned: int = 0
    earlier_QN: NDArray[np.uint64] = field(init=False)
    """The slates of the last answer as they were written at the events before, item ids."""
    recommender: Recommender = field(init=False)
    serving: Serving = field(init=False)
    learner: Learner = field(init=False)

    def __post_init__(self) -> None:
        items, width = Items(half_lives=self.settings.half_lives.counters), self.settings.learner.dimensions
        build, fresh_for_s = index_builder(self.settings), self.settings.retrieval.fresh_for_s
        empty = LiveModel.empty(items, build, width)
        self.serving = Serving(items, build, empty, now_s=lambda: self.now_ms // 1000, fresh_for_s=fresh_for_s)
        users = MemoryUserStore(width=width)
        users.claim([_SOURCE])
        self.learner = Learner(self.settings)
        self.recommender = Recommender(
            users=users,
            scorer=Scorer(self.serving, self.settings),
            rules=Rules(judge=Judge(CONSENT_ALL), dislike_at_most=-np.inf, first_ms=1),
            settings=self.settings,
            now_ms=lambda: self.now_ms,
            foresee=True,
        )

    def step(self, records: list[LogRecord]) -> Answer:
        """Rank a batch, then store and learn it."""
        self.now_ms = max(self.now_ms, records[-1].timestamp)
        answer = self.recommender.respond([Part(_SOURCE, records, records[-1].offset, -1)])
        self.earlier_QN = self._earlier(answer)
        self.recommender.tell(answer)
        self.recommender.store(self.recommender.keep(answer))
        for _, value in answer.told:
            self.learned += self.learner.learn(observations.decode(value))
        self.serving.count(self.learner.counters.changed())
        if self.learned >= self.settings.learner.refresh_events * (self.snapshots + 1):
            self.refresh()
        return answer

    def refresh(self) -> None:
        """Serve from a snapshot of all that was learned."""
        snapshot, self.learner.factors = self.learner.freeze().build(self.now_ms)
        self.serving.swap(snapshot)
        self.snapshots += 1

    def _earlier(self, answer: Answer) -> NDArray[np.uint64]:
        """The slates of an answer once more, of the same candidates, each at the moment of its person's event before.

        That slate was written without knowing when the next event would come. Shape (Q, N), 0 where a place is empty.
        """
        asked, last_s_P = answer.asked, answer.asked.histories.last_s_P
        earlier = replace(asked, now_s_P=np.where(last_s_P > 0, last_s_P, asked.now_s_P))
        item_PN = np.zeros((len(last_s_P), int(asked.places_P.max(initial=0))), np.uint64)
        with self.serving.items.lock:
            stock = replace(self.serving.current(), model=answer.scored.model)
            for found in answer.scored.found:
                ranked = rank(earlier, found, stock, self.settings)
                there_PK = found.candidates.row_PK >= 0
                index_QN, _ = best(ranked.score_PK, ranked.item_PK, there_PK, item_PN.shape[1])
                item_QN = np.take_along_axis(ranked.item_PK, np.maximum(index_QN, 0).astype(np.intp), 1)
                item_PN[found.query.position_P] = np.where(index_QN >= 0, item_QN, 0).astype(np.uint64)
        return item_PN[answer.plan.serve_at]


def run_evaluation(
    log: Log, settings: Settings, *, batch: int = 64, say: Callable[[str], None] = lambda text: None
) -> Evaluation:
    """Rank every event of a log before it is learned. Deterministic for the same log, settings and batch size.

    An event that the service does not read is a miss, and nothing else.
    """
    torch.set_num_threads(1)
    bench = Bench(evaluation_settings(settings), log)
    rank_R, event_R, first_R = np.full(len(log), MISS), np.full(len(log), MISS), np.full(len(log), NOT_SCORED)
    early_R = early(log)
    known: set[str] = set()
    started: set[str] = set()
    taken: set[tuple[str, str]] = set()
    at = 0
    for records in batches(log, settings, batch):
        answer = bench.step(records)
        read = answer.decoded.batch
        item_of = dict(zip(read.offset_B.tolist(), read.item_B.tolist(), strict=True))
        for slate, earlier_N in zip(answer.slates, bench.earlier_QN, strict=True):
            r = slate.trigger.offset
            rank = place_of(item_of[r], slate.item_N)
            if log.user_R[r] in started:
                rank_R[r], event_R[r] = rank, place_of(item_of[r], earlier_N)
            if early_R[r]:
                first_R[r] = rank
            started.add(log.user_R[r])
        for r in sorted(item_of):
            event = log.user_R[r], log.item_R[r]
            if event in taken:
                rank_R[r] = event_R[r] = first_R[r] = NOT_SCORED
            taken.add(event)
        admit(bench, log, [log.item_R[r] for r in sorted(item_of)], known)
        at += len(records)
        if at // _REPORT_EVERY > (at - len(records)) // _REPORT_EVERY:
            so_far = Quality.of(rank_R[:at])
            say(f"{at:,} of {len(log):,}: recall@10 {so_far.recall_10:.4f}, {bench.snapshots} snapshots")
    return Evaluation(rank_R, event_R, first_R, bench.snapshots)


def place_of(item: int, item_N: NDArray[np.uint64]) -> float:
    """Where an item stands in a slate, 0-based."""
    places = np.flatnonzero(item_N == np.uint64(item))
    return float(places[0]) if len(places) else MISS


def early(log: Log) -> NDArray[np.bool_]:
    """Which events are among the first five of their people."""
    held: Counter[str] = Counter()
    early_R = np.zeros(len(log), np.bool_)
    for r, user in enumerate(log.user_R):
        early_R[r] = held[user] < _EARLY
        held[user] += 1
    return early_R


def evaluation_settings(settings: Settings) -> Settings:
    """The settings of a run: a slate for every event, however old it is, and every take told."""
    slates = settings.slates.model_copy(update={"per_event": "all", "size": _PLACES, "max_age_s": float("inf")})
    observe = settings.observe.model_copy(update={"rate": 1.0, "examples_per_s": 1 << 30, "shown": 0.0})
    return settings.model_copy(update={"slates": slates, "observe": observe})


def batches(log: Log, settings: Settings, size: int) -> Iterator[list[LogRecord]]:
    """A record's offset is its row. Times that no state can hold, 0 and those after 2106, are moved to where it can."""
    shift_s = max(0, 1 - int(log.time_s_R[0])) + min(0, LAST_KEPT_MS // 1000 - int(log.time_s_R[-1]))
    records = (
        LogRecord(r, (int(log.time_s_R[r]) + shift_s) * 1000, key, value, tuple(headers))
        for r, (key, value, headers) in enumerate(
            event_records(log, liked_from=settings.events.liked_from, shift_s=shift_s)
        )
    )
    while batch := list(islice(records, size)):
        yield batch


def admit(bench: Bench, log: Log, names: list[str], known: set[str]) -> None:
    """Tell the catalogue of the items that the batch brought in: an item exists from its first event on."""
    new = [name for name in dict.fromkeys(names) if name not in known]
    known.update(new)
    if facts := [log.facts(name) for name in new]:
        bench.serving.catalogue(facts, [])
