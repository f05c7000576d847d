"""The ads of a batch of requests: what is out for their people is asked before profiles are read, all else after."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from embeddings.spend import InFlight
from embeddings.store import Profiles
from ranking.ads.losses import Loss
from streams.contract.consent import Judge
from streams.contract.records import Request
from streams.serving.ad_decisions import Decision
from streams.serving.ad_requests import AskRules, ad_ask, narrowed
from streams.serving.ad_values import AdAsk
from streams.serving.ads import AdServer, People
from streams.serving.slates import Trigger


@dataclass(frozen=True, slots=True)
class Asking:
    """The asks among R requests, by their places there, what is out for each person, and what was decided before."""

    at_A: Sequence[int]
    asks: Sequence[AdAsk]
    flights: Sequence[InFlight | None]
    before: Mapping[str, bytes]


@dataclass(slots=True, kw_only=True)
class AdAnswers:
    """Fills the `imp`s of requests. One per lane; called from one thread at a time."""

    server: AdServer
    rules: AskRules
    judge: Judge

    def asking(self, wanted: Sequence[tuple[Trigger, Request]]) -> Asking:
        """What requests ask of ads, and what is out for their people. Call it before the profiles are read."""
        asks = [
            (n, ask)
            for n, (trigger, request) in enumerate(wanted)
            if (ask := ad_ask(request, trigger, self.judge.of_request(request), self.rules)) is not None
        ]
        found = [ask for _, ask in asks]
        flights, before = self.server.in_flight([ask.person for ask in found]), self.server.before(found)
        return Asking([n for n, _ in asks], found, flights, before)

    def decided(self, asking: Asking, profiles: Profiles, *, known: bool, now_ms: int) -> dict[int, list[Decision]]:
        """The decisions of each request that asks for ads, by its place.

        Args:
            asking: see there.
            profiles: of all requests.
            known: could they be read?
            now_ms: who does not wait for an answer any more is not sold.
        """
        if not asking.asks:
            return {}
        at_A = np.array(asking.at_A, np.int64)
        states = profiles.states.take(at_A)
        stored, met = states.consent_U.tolist(), (states.events_U > 0).tolist()
        asks = [
            _in_time(narrowed(ask, bits) if here else ask, now_ms)
            for ask, bits, here in zip(asking.asks, stored, met, strict=True)
        ]
        people = People(
            states=states,
            exposures=profiles.exposures.take(at_A),
            known_A=np.full(len(asks), known),
            flights=asking.flights,
        )
        decided = self.server.decide(asks, people, asking.before)
        return dict(zip(asking.at_A, decided.of_ask, strict=True))


def _in_time(ask: AdAsk, now_ms: int) -> AdAsk:
    """Who does not wait for an answer any more is sold nothing."""
    if ask.refused or ask.deadline_ms is None or now_ms <= ask.deadline_ms:
        return ask
    return replace(ask, refused=int(Loss.expired))
