"""READ FIRST: a batch of behaviour becomes slates: decode, fold, retrieve, rank, compose; then publish and store.

`Recommender.respond` is the whole service as one synchronous call over arrays; it touches Redis once, to load, and
where slates bring ads reserves these (`ad_slates`). Its slates leave at once; while they travel, `Recommender.tell`
writes down what the batch teaches and `Recommender.keep` what it changes: the next batch is answered on top of that.
All that a batch leads to is published before anything of it is stored (`Recommender.store`, for several batches at
once), because an observation can only be told while the history before the event is still known. Killed before the
store, the batches come again and are told again, and the learner drops the rows it has; killed after, nothing is
missing. Only then is the input acknowledged.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from embeddings.events import EventBatch, Source
from embeddings.exposures import AdSeen, Exposures, fold_exposures
from embeddings.fatigue import Impressions, fold_impressions
from embeddings.fold import Folded, fold
from embeddings.seen import SeenUpdate
from embeddings.stoprule import StopRule
from embeddings.store import Loaded, PartitionMark, SlateUpdate, UserStore, advance, judged, renewed_every_s
from streams.contract import observations
from streams.contract.deadletters import DeadLetter
from streams.contract.decode import Decoded, decode
from streams.contract.messages import Part
from streams.contract.parsing import Rules
from streams.contract.records import Trace
from streams.serving.ad_answers import Filled
from streams.serving.ad_slates import SlateAds
from streams.serving.observation_writer import observe
from streams.serving.planning import Chosen, ExampleBudget, Plan, asked_of, plan_of, triggers_of
from streams.serving.scoring import Scorer
from streams.serving.slates import PublishedSlate, write_slates
from streams.serving.stages import StageTimer, Stamps, epoch_ms, untimed
from streams.serving.traces import traces_of
from streams.serving.values import Asked, Scored
from streams.settings import Settings


@dataclass(slots=True, kw_only=True)
class Answer:
    """What a batch leads to: slates and observations to publish, then states and marks to store.

    `told`, the observations, is there once `Recommender.tell` was called.
    """

    decoded: Decoded
    loaded: Loaded
    folded: Folded
    impressions: Impressions
    exposures: Exposures
    plan: Plan
    asked: Asked
    scored: Scored
    marks: Mapping[Source, PartitionMark]
    taste_UD: NDArray[np.float32]
    slates: list[PublishedSlate]
    traces: list[Trace]
    told: list[tuple[Source, bytes]] = field(default_factory=list)

    @property
    def model_version(self) -> int:
        """The snapshot that everything in here was computed with."""
        return self.scored.model.version

    @property
    def fate_R(self) -> NDArray[np.uint8]:
        """The fate of every record of the batch, those without a row included."""
        aside = np.array([fate for _, _, fate in self.decoded.aside], np.uint8)
        return np.concatenate([self.folded.fate_B, aside])


def no_ads(decoded: Decoded) -> AdSeen | None:
    """Nobody says which ads the events of a batch are impressions of: none counts."""


@dataclass(slots=True, kw_only=True)
class Recommender:
    """Answers batches of behaviour with slates. One per lane; called from one thread at a time.

    B events of U users in a batch, P positions looked at, K candidates each, H items of history, D embedding width.
    """

    users: UserStore
    scorer: Scorer
    rules: Rules
    settings: Settings
    stage: StageTimer = untimed
    now_ms: Callable[[], int] = epoch_ms
    foresee: bool = False
    """Answer every event from the moment before it, as `evaluate` does: what would have been offered?"""
    ad_seen: Callable[[Decoded], AdSeen | None] = no_ads
    """Which ads the events of a batch are impressions of. Asked before states are loaded; may raise as `respond`."""
    ads: SlateAds | None = None
    """Lays ads on slates, where their surface opted in. It reserves what they bring, and raises nothing."""
    logs: dict[Source, str] = field(default_factory=dict)
    """Which logs the offsets of input partitions are of, where that is known; kept with the marks."""
    _budget: ExampleBudget = field(init=False)
    _renewed_every_s: int = field(init=False)
    _fatigue_s: float = field(init=False)
    _rule: StopRule = field(init=False)

    def __post_init__(self) -> None:
        observed = self.settings.observe
        self._fatigue_s = self.settings.slates.fatigue_half_life_s if self.scorer.policies.tire else 0.0
        self._renewed_every_s = renewed_every_s(self.settings.redis.state_ttl_s)
        self._budget = ExampleBudget(observed.examples_per_s, observed.rate, observed.first_examples)
        self._rule = StopRule(self.settings.limits.dead_letter_share)

    def respond(self, parts: Sequence[Part], aside: Sequence[DeadLetter] = ()) -> Answer:
        """Decode, fold, retrieve, rank and compose one batch. Publishes and stores nothing.

        `aside` are records of these partitions that are dead letters already.

        Raises:
            StoreUnavailable: Redis missed its deadline. Retry the whole batch; folding twice is harmless.
            StoreRewound: Redis lost what it had. The lane goes back to what is left there.
            Fenced: another worker owns a partition now. Drop the batch unacknowledged.
        """
        stamps = Stamps(received_ms=self.now_ms())
        with self.stage("decode"):
            decoded = decode([(part.source, part.records) for part in parts], self.rules, stamps.received_ms)
            decoded.dead.extend(aside)
            self.scorer.serving.hear(decoded.names)
            stamps.decoded_ms = self.now_ms()
        batch = decoded.batch
        with self.stage("fold"):
            ads = self.ad_seen(decoded)
            flights = self.ads.in_flight(batch.user_ids) if self.ads else ()
            loaded = self.users.load(batch.user_ids, batch.sources)
            folded = self._fold(batch, loaded)
            impressions = fold_impressions(loaded.unanswered, loaded.states, batch, folded, self._fatigue_s)
            exposures = fold_exposures(loaded.exposures, loaded.states, batch, folded, ads)
            plan = plan_of(decoded, folded, parts, self.settings, now_ms=self.now_ms(), foresee=self.foresee)
            stamps.folded_ms = self.now_ms()
        surface = self.settings.slates.surface
        policy = self.scorer.policies.on(surface)
        triggers = triggers_of(decoded, plan, surface, policy)
        moments = decoded, folded, loaded, impressions, plan, self._chosen(batch, plan)
        asked = asked_of(*moments, triggers, policy, self.settings, foresee=self.foresee)
        scored = self.scorer.score(asked, self.stage, stamps, self.now_ms)
        items, at_Q = self.scorer.items, np.searchsorted(scored.slates.position_Q, plan.serve_at)
        sold = Filled({}, {})
        if self.ads:
            sold = self.ads.filled(triggers, decoded, plan, folded, exposures, flights, scored, at_Q)
        with self.stage("compose"):
            slates = write_slates(triggers, scored, at_Q, items, self.settings, stamps, self.now_ms(), *sold)
        return Answer(
            decoded=decoded,
            loaded=loaded,
            folded=folded,
            impressions=impressions,
            exposures=exposures,
            plan=plan,
            asked=asked,
            scored=scored,
            marks=self._judged(_marks(decoded, folded, loaded, self.logs), parts, decoded, loaded),
            taste_UD=self.scorer.tastes(folded.states, scored.model),
            slates=slates,
            traces=traces_of(slates, scored, plan.serve_at, items),
        )

    def tell(self, answer: Answer) -> None:
        """While the slates travel: write down what the batch teaches."""
        of_ads = self.ads.take_told() if self.ads else ()
        with self.stage("observe"):
            if self.settings.observe.enabled:
                a, shown_rate = answer, self.settings.observe.shown
                examples = self.scorer.examples(a.asked, a.scored)
                done = a.decoded, a.folded, a.plan, a.asked, a.scored
                observed = observe(*done, examples, a.slates, shown_rate, self.logs)
                answer.told = [(o.source, value) for o in (*observed, *of_ads) for value in observations.pieces(o)]

    def keep(self, answer: Answer) -> int:
        """Take down states, seen sets, latest slates, marks and totals of a batch; the next one is folded onto them.

        `UserStore.flush` stores what was kept up to the number returned, in one atomic, fenced step.
        """
        folded = answer.folded
        return self.users.keep(
            answer.decoded.batch.user_ids,
            folded.states,
            changed_U=folded.changed_U,
            taste_UD=answer.taste_UD,
            taste_version=answer.model_version,
            unanswered=answer.impressions.after,
            exposures=answer.exposures,
            seen=self._seen(answer),
            slates=self._latest(answer),
            marks=answer.marks,
        )

    def _seen(self, answer: Answer) -> SeenUpdate | None:
        """The seen sets that grew, and those whose owners come for the first time in a while, for they would expire."""
        before_U, after_U = (states.last_s_U for states in (answer.loaded.states, answer.folded.states))
        seen, evicted = answer.loaded.seen, answer.folded.evicted
        due_N = np.flatnonzero(before_U // self._renewed_every_s < after_U // self._renewed_every_s)
        grown = seen.add(evicted.user_E, evicted.item_E) if len(evicted.user_E) else None
        if not len(due_N):
            return grown
        same = seen.stored(due_N if grown is None else np.setdiff1d(due_N, grown.user_N))
        if grown is None:
            return same
        return SeenUpdate(np.concatenate([grown.user_N, same.user_N]), grown.values + same.values)

    def store(self, number: int) -> None:
        """Write all that was kept up to a number.

        Raises:
            StoreUnavailable: it is not known whether it was written. Call again.
            Fenced, StoreRewound: another worker owns a partition now, or the store lost what it had. Drop the batches
                unacknowledged.
        """
        with self.stage("store"):
            self.users.flush(number)

    def _fold(self, batch: EventBatch, loaded: Loaded) -> Folded:
        return fold(
            loaded.states,
            batch,
            lateness_s=self.settings.events.lateness_s,
            source_code_S=loaded.source_code_S,
            floor_offset_S=loaded.floor_offset_S,
            length_s_B=self.scorer.items.lengths_s(batch.item_B),
        )

    def _chosen(self, batch: EventBatch, plan: Plan) -> Chosen:
        """Which takes of the plan are told with candidates: of those of something new, as many as there may be."""
        taught, told_T = self.scorer.serving.live.ranker.learned, plan.new_T.copy()
        chosen = self._budget.spend(batch.offset_B[plan.take_T[told_T]], self.now_ms(), taught=taught)
        told_T[told_T] = chosen.told_T
        return chosen._replace(told_T=told_T)

    def _judged(
        self, marks: dict[Source, PartitionMark], parts: Sequence[Part], decoded: Decoded, loaded: Loaded
    ) -> dict[Source, PartitionMark]:
        """The marks, and whether a bad deploy pauses a partition; what was processed before was judged then."""
        new = [part.source for part in parts if part.last >= part.committed]
        return judged(loaded.marks, marks, self._rule, new, decoded.code_of)

    def _latest(self, answer: Answer) -> SlateUpdate | None:
        """The last slate of each user."""
        user_Q = answer.decoded.batch.user_B[answer.plan.serve_Q].tolist()
        latest = {user: slate.kept or slate.value for user, slate in zip(user_Q, answer.slates, strict=True)}
        return SlateUpdate(list(latest), list(latest.values()), self.settings.slates.ttl_s) if latest else None


def _marks(decoded: Decoded, folded: Folded, loaded: Loaded, logs: Mapping[Source, str]) -> dict[Source, PartitionMark]:
    """Last offset and fate totals of each partition after this batch, with the records that never became rows."""
    batch, aside = decoded.batch, decoded.aside
    place = {source: s for s, source in enumerate(batch.sources)}
    return advance(
        loaded.marks,
        batch.sources,
        np.concatenate([batch.source_B, np.array([place[source] for source, _, _ in aside], np.int32)]),
        np.concatenate([batch.offset_B, np.array([offset for _, offset, _ in aside], np.int64)]),
        np.concatenate([folded.fate_B, np.array([fate for _, _, fate in aside], np.uint8)]),
        logs,
    )
