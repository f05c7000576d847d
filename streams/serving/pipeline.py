"""READ FIRST: a batch of behaviour becomes slates: decode, fold, retrieve, rank, compose; then publish and store.

`Recommender.respond` is the whole service as one synchronous call over arrays; it touches Redis once, to load. Its
slates leave at once; while they travel, `Recommender.tell` writes down what the batch teaches and `Recommender.keep`
what it changes: the next batch is answered on top of that. All that a batch leads to is published before anything of it
is stored (`Recommender.store`, for several batches at once), because an observation can only be told while the history
before the event is still known. Killed before the store, the batches come again and are told again, and the
learner drops the rows it has; killed after, nothing is missing. Only then is the input acknowledged.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embeddings.events import CONSENT_CONTENT, EventBatch, Source
from embeddings.fold import Folded, fold
from embeddings.store import Loaded, PartitionMark, SlateUpdate, UserStore, advance
from streams.contract import observations
from streams.contract.deadletters import DeadLetter
from streams.contract.decode import Decoded, decode
from streams.contract.messages import Part
from streams.contract.parsing import Rules
from streams.contract.records import Trace
from streams.serving.observation_writer import observe
from streams.serving.planning import Plan, plan_of
from streams.serving.scoring import Asked, Scored, Scorer
from streams.serving.slates import PublishedSlate, Stamps, Trigger, context_code, slate_id_of, write_slates
from streams.serving.traces import is_traced, traces_of
from streams.settings import Settings

StageTimer = Callable[[Any], AbstractContextManager[object]]


def epoch_ms() -> int:
    """The wall clock in epoch milliseconds."""
    return time.time_ns() // 1_000_000


def untimed(name: object) -> AbstractContextManager[object]:
    """A stage timer that times nothing."""
    return nullcontext()


@dataclass(slots=True, kw_only=True)
class Answer:
    """What a batch leads to: slates and observations to publish, then states and marks to store.

    `told`, the observations, is there once `Recommender.tell` was called.
    """

    decoded: Decoded
    loaded: Loaded
    folded: Folded
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
    share: float = 1.0
    """This one's part of what the settings allow a worker."""
    _examples: float = field(init=False, default=0.0)
    """How many may be told now; fills up with time, to what may be told in a second."""
    _sampled_ms: int = field(init=False, default=0)

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
            self.scorer.items.learn_names(decoded.names)
            stamps.decoded_ms = self.now_ms()
        batch = decoded.batch
        with self.stage("fold"):
            loaded = self.users.load(batch.user_ids, batch.sources)
            folded = fold(
                loaded.states,
                batch,
                lateness_s=self.settings.events.lateness_s,
                source_code_S=loaded.source_code_S,
                floor_offset_S=loaded.floor_offset_S,
            )
            plan = plan_of(
                batch,
                folded,
                published_ms_B=decoded.published_ms_B,
                committed_S=np.array([part.committed for part in parts], np.int64),
                now_ms=self.now_ms(),
                slates=self.settings.slates,
                observed=self.settings.observe.enabled,
                foresee=self.foresee,
            )
            stamps.folded_ms = self.now_ms()
        triggers = self._triggers(decoded, plan)
        asked = self._asked(decoded, folded, loaded, plan, triggers)
        scored = self.scorer.score(asked, self.stage, stamps, self.now_ms)
        with self.stage("compose"):
            items, at_Q = self.scorer.items, np.searchsorted(scored.slates.position_Q, plan.serve_at)
            slates = write_slates(triggers, scored, at_Q, items, self.settings, stamps, self.now_ms())
        return Answer(
            decoded=decoded,
            loaded=loaded,
            folded=folded,
            plan=plan,
            asked=asked,
            scored=scored,
            marks=_marks(decoded, folded, loaded),
            taste_UD=self.scorer.tastes(folded.states, scored.model),
            slates=slates,
            traces=traces_of(slates, scored, plan.serve_at, items),
        )

    def tell(self, answer: Answer) -> None:
        """While the slates travel: write down what the batch teaches."""
        with self.stage("observe"):
            if self.settings.observe.enabled:
                examples = self.scorer.examples(answer.asked, answer.scored)
                observed = observe(answer.decoded, answer.folded, answer.plan, answer.scored, examples, answer.slates)
                answer.told = [(o.source, observations.encode(o)) for o in observed]

    def keep(self, answer: Answer) -> int:
        """Take down states, seen sets, latest slates, marks and totals of a batch; the next one is folded onto them.

        `UserStore.flush` stores what was kept up to the number returned, in one atomic, fenced step.
        """
        folded, evicted = answer.folded, answer.folded.evicted
        return self.users.keep(
            answer.decoded.batch.user_ids,
            folded.states,
            changed_U=folded.changed_U,
            taste_UD=answer.taste_UD,
            taste_version=answer.model_version,
            seen=answer.loaded.seen.add(evicted.user_E, evicted.item_E) if len(evicted.user_E) else None,
            slates=self._latest(answer),
            marks=answer.marks,
        )

    def store(self, number: int) -> None:
        """Write all that was kept up to a number.

        Raises:
            StoreUnavailable: it is not known whether it was written. Call again.
            Fenced, StoreRewound: another worker owns a partition now, or the store lost what it had. Drop the batches
                unacknowledged.
        """
        with self.stage("store"):
            self.users.flush(number)

    def _latest(self, answer: Answer) -> SlateUpdate | None:
        """The last slate of each user."""
        user_Q = answer.decoded.batch.user_B[answer.plan.serve_Q].tolist()
        latest = {user: slate.value for user, slate in zip(user_Q, answer.slates, strict=True)}
        return SlateUpdate(list(latest), list(latest.values()), self.settings.slates.ttl_s) if latest else None

    def _asked(
        self, decoded: Decoded, folded: Folded, loaded: Loaded, plan: Plan, triggers: Sequence[Trigger]
    ) -> Asked:
        batch, position_P, user_P, histories = decoded.batch, plan.position_P, plan.user_P, plan.histories
        personal_P = (folded.states.consent_U[user_P] & CONSENT_CONTENT) != 0
        told = self._sampled(batch, plan)
        take_at, take_T = plan.take_at[told], plan.take_T[told]
        serve_P, taken_P = np.zeros(len(position_P), np.bool_), np.zeros(len(position_P), np.uint64)
        now_s_P, context_P = histories.last_s_P.copy(), np.zeros(len(position_P), np.int16)
        serve_P[plan.serve_at] = True
        trace_P = np.zeros(len(position_P), np.bool_)
        trace_P[plan.serve_at] = [is_traced(trigger.slate_id, self.settings.slates.trace_rate) for trigger in triggers]
        taken_P[take_at] = batch.item_B[take_T]
        now_s_P[take_at] = np.maximum(batch.time_s_B[take_T], now_s_P[take_at])
        if not self.foresee:  # a slate knows nothing of the event after it
            now_s_P[plan.serve_at] = histories.last_s_P[plan.serve_at]
        for at, rows in ((take_at, take_T), (plan.serve_at, plan.serve_Q)):
            context_P[at] = [context_code(decoded.events[r].context) for r in rows.tolist()]
        return Asked(
            histories=histories,
            now_s_P=now_s_P,
            context_P=context_P,
            personal_P=personal_P,
            serve_P=serve_P,
            trace_P=trace_P,
            taken_P=taken_P,
            seen=lambda at, item_PK: (
                loaded.seen.hits(user_P[at], histories.item_PH[at], item_PK, folded.evicted, position_P[at])
                & personal_P[at, None]
            ),
            seen_P=loaded.seen.sizes(user_P, folded.evicted, position_P) + histories.count_P,
            places_P=np.full(len(position_P), self.settings.slates.size, np.int32),
            seed=self.settings.seed,
        )

    def _sampled(self, batch: EventBatch, plan: Plan) -> NDArray[np.bool_]:
        """Which takes carry candidate features: chosen by offset, as many as the settings allow in a second."""
        most, now_ms = self.settings.observe.examples_per_s * self.share, self.now_ms()
        self._examples = min(most, self._examples + (now_ms - self._sampled_ms) * most / 1000)
        self._sampled_ms = now_ms
        rate = min(self.settings.observe.rate, self._examples / max(len(plan.take_T), 1))
        mixed_T = batch.offset_B[plan.take_T].astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        sampled_T: NDArray[np.bool_] = (mixed_T >> np.uint64(40)) < rate * 2**24
        self._examples -= float(sampled_T.sum())
        return sampled_T

    def _triggers(self, decoded: Decoded, plan: Plan) -> list[Trigger]:
        batch, surface = decoded.batch, self.settings.slates.surface
        return [
            Trigger(
                slate_id=slate_id_of(batch.sources[batch.source_B[r]], int(batch.offset_B[r]), surface),
                user_id=batch.user_ids[batch.user_B[r]],
                source=batch.sources[batch.source_B[r]],
                offset=int(batch.offset_B[r]),
                event_ms=decoded.events[r].event_time,
                published_ms=int(decoded.published_ms_B[r]),
                surface=surface,
                size=self.settings.slates.size,
                headers=decoded.records[r].headers,
            )
            for r in plan.serve_Q.tolist()
        ]


def _marks(decoded: Decoded, folded: Folded, loaded: Loaded) -> dict[Source, PartitionMark]:
    """Last offset and fate totals of each partition after this batch, with the records that never became rows."""
    batch, aside = decoded.batch, decoded.aside
    place = {source: s for s, source in enumerate(batch.sources)}
    return advance(
        loaded.marks,
        batch.sources,
        np.concatenate([batch.source_B, np.array([place[source] for source, _, _ in aside], np.int32)]),
        np.concatenate([batch.offset_B, np.array([offset for _, offset, _ in aside], np.int64)]),
        np.concatenate([folded.fate_B, np.array([fate for _, _, fate in aside], np.uint8)]),
    )
