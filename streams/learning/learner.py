"""READ SECOND: what the service learns, from observations alone: pair counts, factors, item counts, ranker weights.

`Learner.learn` takes one observation and drops what it knows already; `Learner.freeze` copies what a snapshot needs, so
that `build` can run beside further learning; `state` and `restore` are the checkpoint: counts, weights and offsets
together, so that a learner killed at any point goes on from the same counts. An item that left the catalogue, or gave
way to others (`streams.learning.roster`), leaves nothing behind for whoever gets its row.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from embeddings.contexts import ContextCounts, Popularity
from embeddings.cooccurrence import CountSettings, PairCounts
from embeddings.counters import ItemCounters
from embeddings.events import CONSENT_PROFILE, OF_ADS, Source
from embeddings.ids import NO_ITEM
from embeddings.idtable import IdTable
from embeddings.lessons import GOES_WITH, Lesson, lessons
from embeddings.names import Names
from embeddings.snapshots import Snapshot
from embeddings.svd import Factors
from ranking.features import COLUMNS
from ranking.trainer import Trainer, TrainerSettings
from ranking.weights import Shape, part_of
from streams.contract.fields import LAST_KEPT_MS
from streams.contract.observations import Observation
from streams.learning.ad_outcomes import AdOutcomes
from streams.learning.catalogue import Catalogue
from streams.learning.outcomes import Outcomes
from streams.learning.roster import Roster
from streams.settings import Settings
from streams.transport.logs import differ

_STEP_EXAMPLES = 64
_POPULAR = 200
"""Items that are told as popular in a context."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    """A copy of everything a snapshot is made of, taken between two observations; `told_N` are the rows it may hold."""

    pairs: PairCounts
    ids_N: NDArray[np.uint64]
    told_N: NDArray[np.bool_]
    names: Names
    factors: Factors | None
    ranker: dict[str, NDArray[np.generic]]
    contexts: Popularity
    version: int
    width: int
    neighbours: int
    seed: int

    def build(self, created_ms: int) -> tuple[Snapshot, Factors]:
        """Factor the counts (the slow part, safe beside further learning) into a snapshot."""
        previous = self.factors.of(self.ids_N) if self.factors is not None else None
        factors = self.pairs.factors(self.width, previous, seed=self.seed)
        count = len(self.pairs)
        told_N = self.told_N[:count]
        rows_NK, weights_NK = self.pairs.neighbours(self.neighbours, told_N)
        kept = np.flatnonzero(told_N)
        some = slice(None) if len(kept) == count else kept
        place_N = np.full(len(self.told_N), -1, np.int32)
        place_N[kept] = np.arange(len(kept))
        snapshot = Snapshot(
            version=self.version,
            ids_N=self.ids_N[kept],
            names=self.names.of(kept.astype(np.int32)),
            source_ND=factors.source_ND[some],
            target_ND=factors.target_ND[some],
            neighbours_NK=_placed(rows_NK[some], place_N),
            weights_NK=weights_NK[some],
            counts_N=self.pairs.counts_N[some],
            ranker=self.ranker,
            contexts=self.contexts._replace(row_CK=_placed(self.contexts.row_CK, place_N)),
            created_ms=created_ms,
        )
        return snapshot, replace(factors, ids_N=self.ids_N[:count])


def _placed(rows: NDArray[np.int32], place_N: NDArray[np.int32]) -> NDArray[np.int32]:
    """Rows as places in a snapshot, -1 where they have none."""
    return np.where(rows >= 0, place_N[rows], -1).astype(np.int32) if len(place_N) else np.full_like(rows, -1)


@dataclass(slots=True)
class Learner:
    """All that is learned, and the offset of each input partition up to which it was."""

    settings: Settings
    catalogue: Catalogue = field(default_factory=Catalogue)
    shape: Shape = field(default_factory=Shape)
    """Sizes of the ranking model that learning starts with; a checkpoint brings its own."""
    roster: Roster = field(init=False)
    withdrawn: list[str] = field(init=False, default_factory=list)
    """Names of items whose counts are no more, that nobody was told of yet."""
    marks: dict[tuple[Source, str], int] = field(init=False, default_factory=dict)
    pairs: PairCounts = field(init=False)
    counters: ItemCounters = field(init=False)
    contexts: ContextCounts = field(init=False)
    trainer: Trainer = field(init=False)
    outcomes: Outcomes = field(init=False)
    ads: AdOutcomes = field(init=False)
    factors: Factors | None = field(init=False, default=None)
    version: int = field(init=False, default=0)
    rows: int = field(init=False, default=0)
    _examples: list[tuple[NDArray[np.float16], NDArray[np.uint64], NDArray[np.float16]]] = field(
        init=False, default_factory=list
    )

    def __post_init__(self) -> None:
        s = self.settings.learner
        self.roster = Roster(s.max_items, self.catalogue)
        self.pairs = PairCounts(self._pair_settings())
        self.contexts = ContextCounts(self.settings.half_lives.mid_s)
        self.counters = ItemCounters(self.ids, self.settings.half_lives.counters)
        self.trainer = Trainer(self.shape, TrainerSettings(rate=s.learning_rate), seed=self.settings.seed)
        self.outcomes = Outcomes.of(self.settings)
        self.ads = AdOutcomes(self.settings)

    @property
    def ids(self) -> IdTable:
        """Whose rows are whose."""
        return self.roster.ids

    @property
    def names(self) -> dict[int, str]:
        """The names of all items by id, where they are known."""
        return {item: name for item, name in self.roster.named(self.ids.ids_N).items() if name}

    def _pair_settings(self) -> CountSettings:
        s = self.settings.learner
        return CountSettings(
            power=s.distance_power,
            backward=s.symmetry,
            half_life_s=self.settings.half_lives.pairs_s,
            source_power=s.source_power,
            target_power=s.target_power,
        )

    def learn(self, observation: Observation, told_s: int = LAST_KEPT_MS // 1000) -> int:
        """Learn the rows that are new; returns how many. Rows whose person did not agree to a profile teach nothing.

        `told_s` is when they were told. No row is of later: one whose clock is wrong would outweigh all others.
        Slates shown and ads decided are only remembered, however often they are told; of slates asked for there are no
        rows. A row of an ad is of no item.
        """
        item_R = np.where(OF_ADS[observation.action_R], np.uint64(NO_ITEM), observation.item_R)
        o = replace(observation, time_s_R=np.minimum(observation.time_s_R, told_s), item_R=item_R)
        if o.shown_x_LNF.shape[2] == COLUMNS:  # else told by a release with other features
            self.outcomes.show(o)
        self.ads.show(o)
        if not len(o):
            return 0
        log = self._log_of(o)
        mark = self.marks.get(log, -1)
        self.marks[log] = max(mark, o.last)
        new_R = (o.offset_R > mark) & ((o.consent_R & CONSENT_PROFILE) != 0)
        if not new_R.any():
            return 0
        row_R = self._rows(np.where(new_R, o.item_R, 0))
        self.roster.name(o.names)
        self._count(o, row_R, new_R)
        self._rank(o, new_R)
        self._learn_outcomes(o, new_R)
        self.ads.learn(o, new_R)
        self.rows += int(new_R.sum())
        return int(new_R.sum())

    def _log_of(self, o: Observation) -> tuple[Source, str]:
        """What an observation's offsets are of; a topic made anew begins at 0 again, and its rows are new.

        Who says less than was said before, as a worker of an earlier release, means the latest log that fits.
        """
        fit = [log for source, log in self.marks if source == o.source and not differ(log, o.log)]
        if not fit:
            return o.source, o.log
        if len(fit[-1]) < len(o.log):
            self.marks[o.source, o.log] = self.marks.pop((o.source, fit.pop()))
            fit.append(o.log)
        return o.source, fit[-1]

    def _rows(self, item_R: NDArray[np.uint64]) -> NDArray[np.int32]:
        """Rows of items, 0 for none; -1 for those that find no room."""
        self._forget(self.roster.crowded_out(item_R, self.counters.last_seen_s))
        return self.roster.rows(item_R)

    def heed(self, kept: NDArray[np.uint64], removed: NDArray[np.uint64]) -> None:
        """Take over what a part of the catalogue says: which items it holds, and which it does not hold any more."""
        self.counters.tell_again(self.roster.heed(kept, removed))

    def _forget(self, rows_R: NDArray[np.int32]) -> None:
        """Free rows, and leave nothing of their items behind."""
        if not len(rows_R):
            return
        gone_N = np.zeros(len(self.ids), np.bool_)
        gone_N[rows_R] = True
        ids_R = self.ids.ids_N[rows_R]
        self.withdrawn += [name for name in self.roster.names.of(rows_R[self.roster.told()[rows_R]]) if name]
        self.pairs.forget(gone_N)
        self.contexts.forget(gone_N)
        self.counters.forget(rows_R)
        self.roster.free(rows_R)
        kept_N = self.ids.ids_N
        self.trainer.forget(ids_R.astype(np.int64), kept_N[kept_N != NO_ITEM].astype(np.int64))

    def _count(self, o: Observation, row_R: NDArray[np.int32], new_R: NDArray[np.bool_]) -> None:
        """Count what the rows teach; an item once per person and sitting (`embeddings.lessons`)."""
        done = o.item_R[o.take_T], o.action_R[o.take_T], o.time_s_R[o.take_T]
        lesson_T, held_T = lessons(done, (o.history_TH, o.history_action_TH, o.history_time_s_TH))
        lesson_R = np.zeros(len(o), np.uint8)
        lesson_R[o.take_T] = lesson_T
        on_item_R = new_R & (row_R >= 0)
        self.counters.count(row_R[on_item_R], o.action_R[on_item_R], o.time_s_R[on_item_R], lesson_R[on_item_R])
        back_T = np.flatnonzero((lesson_T & Lesson.like_back != 0) & on_item_R[o.take_T])
        self.counters.take_back(row_R[o.take_T[back_T]], o.history_time_s_TH[back_T, held_T[back_T]])
        took_T = new_R[o.take_T] & (lesson_T & Lesson.take != 0)
        take_T = o.take_T[took_T]
        if o.context_RC.shape[1]:
            here_T = take_T[row_R[take_T] >= 0]
            self.contexts.count(row_R[here_T], o.context_RC[here_T], o.time_s_R[here_T])
        held_TH = self.roster.rows_held(np.where(GOES_WITH[o.history_action_TH], o.history_TH, 0)[took_T])
        self.pairs.update(row_R[take_T], held_TH, o.time_s_R[take_T])

    def _rank(self, o: Observation, new_R: NDArray[np.bool_]) -> None:
        if o.example_x_ESF.shape[2] != COLUMNS:
            return  # told by a release with other features
        new_E = new_R[o.example_E]
        if new_E.any():
            if self._examples and self._examples[0][1].shape[1] != o.example_item_ES.shape[1]:
                self.step()  # `observe.negatives` is being changed from worker to worker
            self._examples.append((o.example_x_ESF[new_E], o.example_item_ES[new_E], o.log_q_ES[new_E]))
        if sum(len(x) for x, _, _ in self._examples) >= _STEP_EXAMPLES:
            self.step()

    def _learn_outcomes(self, o: Observation, new_R: NDArray[np.bool_]) -> None:
        """Count the impressions whose window closed with these rows, and learn what became of them."""
        closed = self.outcomes.learn(o, new_R, self.trainer)
        row_C = self.roster.rows_held(closed.item_C)
        known_C = row_C >= 0
        if known_C.any():
            self.counters.count_shown(row_C[known_C], closed.engaged_C[known_C], closed.shown_s_C[known_C])

    def step(self) -> None:
        """Train the ranker on the examples at hand."""
        if not self._examples:
            return
        x_ESF, item_ES, log_q_ES = (np.concatenate(column) for column in zip(*self._examples, strict=True))
        self._examples.clear()
        self.trainer.learn_listwise(x_ESF, item_ES.astype(np.int64), item_ES != 0, log_q_ES.astype(np.float32))

    def freeze(self, now_s: int = 0) -> Frozen:
        """Copy what the next snapshot is made of. Its version is greater than every one before, and no clock's past."""
        self.step()
        self._forget(self.roster.leavers(self.counters.last_seen_s))
        self.version = max(self.version + 1, now_s)
        told_N = self.roster.told()
        return Frozen(
            pairs=PairCounts.restore(self.pairs.state()),
            ids_N=self.ids.ids_N.copy(),
            told_N=told_N,
            names=self.roster.names.copy(),
            factors=self.factors,
            ranker=self.trainer.tensors() | self.ads.tensors(),
            contexts=self.contexts.popularity(_POPULAR, told_N),
            version=self.version,
            width=self.settings.learner.dimensions,
            neighbours=self.settings.learner.neighbours,
            seed=self.settings.seed,
        )

    def state(self) -> tuple[dict[str, NDArray[np.generic]], str]:
        """Everything needed to go on: arrays, good until the next `learn`, and a JSON text with marks and version."""
        self.step()
        arrays = {f"pairs.{k}": v for k, v in self.pairs.state().items()}
        arrays |= self.counters.state() | {f"trainer.{k}": v for k, v in self.trainer.state().items()}
        arrays |= {f"contexts.{k}": v for k, v in self.contexts.state().items()}
        arrays |= self.roster.state()
        open_impressions, clocks = self.outcomes.state()
        arrays |= {f"impressions.{k}": v for k, v in open_impressions.items()}
        of_ads, ad_clocks = self.ads.state()
        arrays |= {f"ads.{k}": v for k, v in of_ads.items()}
        arrays["withdrawn"] = np.frombuffer("\n".join(self.withdrawn).encode(), np.uint8)
        if self.factors is not None:
            arrays |= {"factors.source": self.factors.source_ND, "factors.target": self.factors.target_ND}
            arrays |= {"factors.ids": self.factors.ids_N} if self.factors.ids_N is not None else {}
        known = {
            "marks": [[*source, offset] for (source, _), offset in self.marks.items()],
            "logs": [log for _, log in self.marks],
            "version": self.version,
            "rows": self.rows,
            "clocks": clocks,
            "ad_clocks": ad_clocks,
        }
        return arrays, json.dumps(known)

    def restore(
        self, arrays: dict[str, NDArray[np.generic]], text: str, steps: Sequence[Mapping[str, NDArray[np.generic]]] = ()
    ) -> None:
        """Go on from a `state`, and from what `pairs.log` said was done to pair counts since."""
        known = json.loads(text)
        marks, logs = known["marks"], known.get("logs", [""] * len(known["marks"]))
        self.marks = {(Source(topic, p), log): offset for (topic, p, offset), log in zip(marks, logs, strict=True)}
        self.version, self.rows = known["version"], known["rows"]
        self.roster.restore(arrays, {int(item): name for item, name in known.get("names", {}).items()})
        self.counters.restore(arrays)
        self.contexts.restore(part_of(arrays, "contexts."))
        self.pairs = PairCounts.restore(
            part_of(arrays, "pairs."), self._pair_settings(), clock_s=self.counters.clock_s, logs=steps
        )
        self.trainer.restore(part_of(arrays, "trainer."))
        self.withdrawn = arrays.get("withdrawn", np.zeros(0, np.uint8)).tobytes().decode().split("\n")
        self.withdrawn = [name for name in self.withdrawn if name]
        if "clocks" in known:
            self.outcomes.restore(part_of(arrays, "impressions."), known["clocks"], COLUMNS)
        self.ads.restore(part_of(arrays, "ads."), known.get("ad_clocks", []))
        if "factors.source" in arrays:
            source_ND, target_ND = (np.asarray(arrays[f"factors.{name}"], np.float32) for name in ("source", "target"))
            of_N = arrays.get("factors.ids", self.ids.ids_N[: len(source_ND)])
            self.factors = Factors(source_ND, target_ND, np.array(of_N, np.uint64))
