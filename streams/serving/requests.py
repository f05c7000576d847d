"""Requests become slates: the profile is read, never written, so any worker may answer any request.

A decision is always possible. Without the store the answer is made of what is popular, without the right to use the
profile of what is popular in this context; the slate says so in `degraded`. A store that says nothing is waited for
until the first deadline of a batch, and then let alone for a while.
"""

import logging
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from embeddings.errors import StoreUnavailable
from embeddings.events import CONSENT_CONTENT
from embeddings.exposures import Exposures
from embeddings.fatigue import Unanswered
from embeddings.ids import item_ids
from embeddings.patience import Patience
from embeddings.seen import SeenSets
from embeddings.state_columns import Histories, Tastes, no_states
from embeddings.store import Profiles, UserStore
from streams.contract.cloudevents import header
from streams.contract.consent import strictest
from streams.contract.deadletters import Code, DeadLetter
from streams.contract.messages import Part, RawRecord
from streams.contract.parsing import Rules, Unreadable, moment_ms, published_ms, read, user_of
from streams.contract.records import Degraded, Request, decode_request
from streams.serving.ad_answers import AdAnswers, Filled
from streams.serving.ad_requests import deadline_ms
from streams.serving.draws import chances
from streams.serving.scoring import Scorer
from streams.serving.slates import NOWHERE, PublishedSlate, Trigger, write_slates
from streams.serving.stages import StageTimer, Stamps, epoch_ms, untimed
from streams.serving.values import Asked, Seen, Told
from streams.serving.viewers import context_code, context_keys, viewer_of
from streams.settings import Settings

log = logging.getLogger(__name__)
REPLY_TO = "reply_to"


@dataclass(slots=True, kw_only=True)
class Answerer:
    """Answers batches of requests. One per lane; called from one thread at a time."""

    users: UserStore
    scorer: Scorer
    rules: Rules
    settings: Settings
    patience: Patience = field(default_factory=lambda: Patience(math.inf))
    """Of `users` and the ledger of `ads`: how long this batch waits for them."""
    stage: StageTimer = untimed
    now_ms: Callable[[], int] = epoch_ms
    ads: AdAnswers | None = None
    """Fills the `imp`s of requests and the pages of surfaces that opted in, where ads are sold."""
    missing: Collection[str] = ()
    """Topics that `reply_to` may name and that the brokers do not have."""
    _blind: bool = field(init=False, default=False)

    def respond(self, parts: Sequence[Part]) -> tuple[list[PublishedSlate], list[DeadLetter]]:
        """A slate for every readable request, in order, and the unreadable ones. Raises nothing that is transient."""
        stamps = Stamps(received_ms=self.now_ms())
        wanted: list[tuple[Trigger, Request]] = []
        dead: list[DeadLetter] = []
        for part in parts:
            good, bad = read(part.source, part.records, decode_request, self.rules)
            dead += bad
            for record, request in good:
                assert request is not None
                try:
                    wanted.append((self._trigger(part, record, request), request))
                except Unreadable as error:
                    dead.append(DeadLetter(part.source, record.offset, record, error.code, error.detail))
        stamps.decoded_ms = self.now_ms()
        slates = self._answer(wanted, stamps) if wanted else []
        if self.ads:
            self.ads.server.tell([(p.source, p.records[0].offset, p.records[-1].offset) for p in parts if p.records])
        return slates, dead

    def _trigger(self, part: Part, record: RawRecord, request: Request) -> Trigger:
        slates, reply_to = self.settings.slates, header(record.headers, REPLY_TO)
        topic = reply_to.decode("utf-8", "replace") if reply_to else None
        if topic is not None and topic not in slates.reply_topics:
            raise Unreadable(Code.malformed, "reply_to names a topic that is not allowed")
        if topic in self.missing:
            raise Unreadable(Code.unknown_topic, "reply_to names a topic that the brokers do not have")
        published = published_ms(record, self.rules, self.now_ms())
        surface = request.surface or (request.context and request.context.surface) or slates.surface
        policy = self.scorer.policies.on(surface)
        return Trigger(
            user_id=user_of(record, request.user_id),
            source=part.source,
            offset=record.offset,
            event_ms=moment_ms(request.event_time, published, self.rules),
            published_ms=published,
            viewer=policy.viewer(viewer_of(request.context, surface)),
            policy=policy,
            size=min(policy.size if request.n is None else request.n, policy.candidates),
            headers=record.headers,
            request_id=request.request_id,
            reply_to=topic,
        )

    def _answer(self, wanted: list[tuple[Trigger, Request]], stamps: Stamps) -> list[PublishedSlate]:
        triggers = [trigger for trigger, _ in wanted]
        requests = [request for _, request in wanted]
        until_ms_P = self._deadlines(wanted)
        self._wait_until(until_ms_P)
        asking = self.ads.asking(wanted) if self.ads else None  # before the profiles are read
        with self.stage("read"):
            profiles, degraded = self._profiles([trigger.user_id for trigger in triggers])
        stamps.folded_ms = self.now_ms()
        late_P, allowed_P = until_ms_P < self.now_ms(), self._allowed(requests, profiles)
        triggers = [
            _degraded(trigger, degraded or ("popular" if late else None if allowed else "contextual"))
            for trigger, allowed, late in zip(triggers, allowed_P.tolist(), late_P.tolist(), strict=True)
        ]
        asked = self._asked(triggers, requests, profiles, allowed_P, late_P)
        scored = self.scorer.score(asked, self.stage, stamps, self.now_ms)
        at_P = np.searchsorted(scored.slates.position_Q, np.arange(len(triggers)))
        places = np.where(asked.serve_P, at_P, NOWHERE)
        ads = Filled({}, {})
        if self.ads and asking:
            ads = self.ads.decided(asking, profiles, scored, places, known=degraded is None, now_ms=self.now_ms())
        with self.stage("compose"):
            items, settings, now_ms = self.scorer.items, self.settings, self.now_ms()
            return write_slates(triggers, scored, places, items, settings, stamps, now_ms, *ads)

    def _profiles(self, user_ids: Sequence[str]) -> tuple[Profiles, Degraded | None]:
        try:
            profiles = self.users.read(user_ids)
        except StoreUnavailable as error:
            if not self._blind:
                log.warning("requests are answered without profiles: %s", error)
            self._blind = True
            nobody = no_states(len(user_ids))
            width = self.settings.learner.dimensions
            blank = Tastes(
                np.zeros((len(user_ids), width), np.int8),
                np.zeros(len(user_ids), np.float32),
                np.zeros(len(user_ids), np.uint32),
            )
            shown, ads = Unanswered.nothing(len(user_ids)), Exposures.nothing(len(user_ids))
            return Profiles(nobody, blank, shown, ads, SeenSets.decode([None] * len(user_ids))), "popular"
        if self._blind:
            log.info("profiles are read again")
        self._blind = False
        return profiles, None

    def _deadlines(self, wanted: Sequence[tuple[Trigger, Request]]) -> NDArray[np.int64]:
        """When each request has to be answered; past that it is answered at once, with what is popular."""
        default_ms = self.settings.slates.deadline_ms
        return np.array(
            [deadline_ms(request, trigger.published_ms, default_ms) for trigger, request in wanted], np.int64
        )

    def _wait_until(self, until_ms_P: NDArray[np.int64]) -> None:
        """How long to wait for Redis: until the first deadline that has not passed, and hardly where all have."""
        left_ms_P = until_ms_P - self.now_ms()
        in_time = left_ms_P[left_ms_P >= 0]
        self.patience.within(float(in_time.min()) / 1_000 if len(in_time) else 0.0)

    def _allowed(self, requests: Sequence[Request], profiles: Profiles) -> NDArray[np.bool_]:
        """May the profile be used? The stricter of the stored consent and the request's decides."""
        stored = profiles.states.consent_U.tolist()
        known = (profiles.states.events_U > 0).tolist()
        bits = [
            strictest(self.rules.judge.of_request(request), kept) if here else self.rules.judge.of_request(request)
            for request, kept, here in zip(requests, stored, known, strict=True)
        ]
        asked_P = np.array([request.personalised for request in requests], np.bool_)
        allowed_P: NDArray[np.bool_] = asked_P & ((np.array(bits, np.uint8) & CONSENT_CONTENT) != 0)
        return allowed_P

    def _asked(
        self,
        triggers: Sequence[Trigger],
        requests: Sequence[Request],
        profiles: Profiles,
        allowed_P: NDArray[np.bool_],
        late_P: NDArray[np.bool_],
    ) -> Asked:
        states, count = profiles.states, len(requests)
        excluded = [item_ids(request.exclude) for request in requests]
        repeats_P = np.array([trigger.policy.repeats for trigger in triggers], np.bool_)
        held_P = profiles.seen.sizes(np.arange(count, dtype=np.int32)) + states.count_U
        asked_s_P = np.array([trigger.event_ms // 1000 for trigger in triggers], np.int64)
        now_s_P = np.where(allowed_P, np.maximum(asked_s_P, states.last_s_U), asked_s_P)
        personal_P = allowed_P & ~late_P
        return Asked(
            histories=Histories(*states[:6]),
            now_s_P=now_s_P,
            context_P=np.array([context_code(request.context, request.surface) for request in requests], np.int16),
            key_PC=context_keys([r.context for r in requests], asked_s_P, [r.surface for r in requests]),
            viewers=[trigger.viewer for trigger in triggers],
            policies=[trigger.policy for trigger in triggers],
            personal_P=personal_P,
            serve_P=np.array([trigger.size > 0 for trigger in triggers], np.bool_),
            trace_P=np.zeros(count, np.bool_),
            chance_P=chances((trigger.slate_id for trigger in triggers), self.settings.seed),
            told=Told.nothing(count),
            seen=_seen(profiles, allowed_P & ~repeats_P, excluded),
            seen_P=allowed_P * held_P + np.array(list(map(len, excluded))),
            shown=profiles.unanswered.shown(now_s_P, self.settings.slates.fatigue_half_life_s, personal_P),
            places_P=np.array([trigger.size for trigger in triggers], np.int32),
        )


def _seen(profiles: Profiles, known_P: NDArray[np.bool_], excluded: Sequence[NDArray[np.uint64]]) -> Seen:
    """What must not be offered again: what is known to have been seen, where that matters, and what is excluded."""
    everybody_P = np.arange(len(known_P), dtype=np.int32)

    def seen(at: NDArray[np.intp], item_PK: NDArray[np.uint64]) -> NDArray[np.bool_]:
        hit_PK = profiles.seen.hits(everybody_P[at], profiles.states.item_UH[at], item_PK)
        hit_PK[~known_P[at]] = False
        for row, p in enumerate(at.tolist()):
            if len(excluded[p]):
                hit_PK[row] |= np.isin(item_PK[row], excluded[p])
        return hit_PK

    return seen


def _degraded(trigger: Trigger, mode: Degraded | None) -> Trigger:
    return replace(trigger, degraded=mode) if mode else trigger
