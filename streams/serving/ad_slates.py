"""Ads on slates that nobody asked for: those that events lead to, where their surface opted in (`ads.surfaces`).

A batch of events confirms first which ads it speaks of, then asks what is out for its people, then reads their states:
so every impression is counted, in one of these or in both. Decisions are reserved before a slate is published, by slate
id and place: a batch that comes again is told the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from embeddings.events import Source
from embeddings.exposures import Exposures
from embeddings.fold import Folded
from embeddings.spend import InFlight
from streams.contract.decode import Decoded
from streams.contract.observations import Observation
from streams.contract.records import Request
from streams.serving.ad_answers import Filled, decided_on, filled, taught
from streams.serving.ad_pages import Surface, unasked
from streams.serving.ad_people import People
from streams.serving.ad_requests import AskRules, narrowed, person_of
from streams.serving.ad_values import AdAsk
from streams.serving.ads import AdServer
from streams.serving.planning import Plan
from streams.serving.slates import Trigger
from streams.serving.values import Scored
from streams.settings import Settings


@dataclass(slots=True, kw_only=True)
class SlateAds:
    """Lays ads on the slates of a lane of events. Called from one thread at a time.

    Attributes:
        server: of this lane, with a connection of its own.
        rules: how what is known of where somebody looks is read.
        surface: of slates that nobody asked for.
        counted_as: the topic under whose partitions the funnel of these slates is counted: that of events has its own.
    """

    server: AdServer
    rules: AskRules
    surface: Surface
    counted_as: str
    _told: list[Observation] = field(init=False, default_factory=list)

    @classmethod
    def of(cls, server: Callable[[], AdServer], rules: AskRules, settings: Settings) -> "SlateAds | None":
        """None where the surface of slates that nobody asked for did not opt in; `server` makes one for this lane."""
        surface = Surface.of(settings).get(settings.slates.surface)
        if surface is None:
            return None
        return cls(server=server(), rules=rules, surface=surface, counted_as=settings.topics.name("slates"))

    def in_flight(self, user_ids: Sequence[str]) -> list[InFlight | None]:
        """What is out for people; call it after their events are confirmed and before their states are read."""
        if not self.server.exchange.market.sells:
            return [None] * len(user_ids)
        return self.server.known([person_of(user_id, self.rules.secret) for user_id in user_ids], ()).flights

    def filled(
        self,
        triggers: Sequence[Trigger],
        decoded: Decoded,
        plan: Plan,
        folded: Folded,
        exposures: Exposures,
        flights: Sequence[InFlight | None],
        scored: Scored,
        at_Q: NDArray[np.intp],
    ) -> Filled:
        """What Q slates bring of ads, by their places; nothing where nothing is sold.

        Args:
            triggers: what they answer.
            decoded: the batch, with the contexts of its events.
            plan: which events these are.
            folded: the states of its people.
            exposures: and what they saw of ads; what of it is out as well counts twice until it is stored.
            flights: `in_flight` of its people.
            scored: the slates.
            at_Q: where each is among these.
        """
        if not self.server.exchange.market.sells or not triggers:
            return Filled({}, {})
        row_Q, batch = plan.serve_Q.tolist(), decoded.batch
        user_Q = batch.user_B[plan.serve_Q]
        stored_Q = folded.states.consent_U[user_Q].tolist()
        asked = [
            (q, narrowed(ask, stored_Q[q]))
            for q, (row, trigger) in enumerate(zip(row_Q, triggers, strict=True))
            if (ask := self._ask(decoded, row, trigger)) is not None
        ]
        if not asked:
            return Filled({}, {})
        at_A, asks = [q for q, _ in asked], [ask for _, ask in asked]
        user_A = user_Q[at_A]
        before = self.server.known((), asks).before
        if before is None:
            asks, before = unasked(asks), {}
        people = People(
            states=folded.states.take(user_A),
            exposures=exposures.take(user_A),
            known_A=np.ones(len(asks), np.bool_),
            flights=[flights[user] for user in user_A.tolist()],
        )
        decided, seats_A = decided_on(self.server, asks, people, before, scored, at_Q[at_A])
        self._told += taught(self.server, decided, asks, [triggers[q] for q in at_A], people)
        self._tell(triggers)
        return filled(at_A, decided, seats_A)

    def take_told(self) -> list[Observation]:
        """What was decided since, for the learner, and what was decided before and came again."""
        told, self._told = self._told, []
        return told

    def _ask(self, decoded: Decoded, row: int, trigger: Trigger) -> AdAsk | None:
        event = decoded.events[row]
        request = Request(request_id="", surface=trigger.surface, context=event.context, consent=event.consent)
        return self.surface.ask(request, trigger, int(decoded.batch.consent_B[row]), self.rules)

    def _tell(self, triggers: Sequence[Trigger]) -> None:
        """Have the ledger told now and then what became of line items."""
        reach: dict[int, tuple[int, int]] = {}
        for trigger in triggers:
            partition, offset = trigger.source.partition, trigger.offset
            first, last = reach.get(partition, (offset, offset))
            reach[partition] = min(first, offset), max(last, offset)
        self.server.tell([(Source(self.counted_as, partition), *stretch) for partition, stretch in reach.items()])
