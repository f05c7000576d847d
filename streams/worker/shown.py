"""What published slates held and what was taken of them, told to the metrics of both lanes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np

from embeddings.events import TAKES, Fate, Says, actions_that
from streams.contract.cloudevents import trace_context
from streams.process.metrics import Trigger
from streams.process.slate_metrics import Place, SlateMetrics
from streams.serving.pipeline import Answer
from streams.serving.slates import PublishedSlate
from streams.worker.takes import NOT_SHOWN, LatestSlates

_BEGINS = TAKES & ~actions_that(Says.goes_on)
"""By action code: does a person take something that they had not begun?"""
PLACES: tuple[Place, ...] = ("unknown", "not_shown", "first_3", "first_10", "later")
_BOUNDS = NOT_SHOWN, 0, 3, 10
"""Where each but the first of `PLACES` begins."""


@dataclass(slots=True)
class Shown:
    """One per worker: what a request was answered with is known when an event comes."""

    metrics: SlateMetrics
    latest: LatestSlates = field(init=False, default_factory=LatestSlates)

    def published(self, trigger: Trigger, slates: Sequence[PublishedSlate], now_ms: int) -> None:
        """The broker has these slates since now."""
        for degraded, alike in groupby(slates, lambda slate: slate.trigger.degraded):
            some = list(alike)
            waited_s = [(now_ms - slate.trigger.published_ms) / 1000 for slate in some]
            self.metrics.published(trigger, waited_s, degraded, map(_trace, some))
        with_items = [slate for slate in slates if slate.trigger.size]
        if not with_items:
            return
        self.metrics.untaught.inc(sum(not slate.taught for slate in with_items))
        self.metrics.cold.inc(sum(not slate.known for slate in with_items))
        self.metrics.short.inc(sum(slate.filled < slate.trigger.size for slate in with_items))
        row_X, source_X = (
            np.concatenate(column) for column in zip(*((s.row_N, s.source_N) for s in with_items), strict=True)
        )
        self.metrics.held(row_X, source_X, sum(slate.explored for slate in with_items))
        self.latest.show(
            [slate.trigger.user_id for slate in with_items],
            [slate.item_N[: slate.trigger.size] for slate in with_items],
        )

    def judge(self, answer: Answer) -> Mapping[str, int]:
        """Where what a batch took had stood, before any slate of the batch is out: by `Place`, how often."""
        batch, fate_B = answer.decoded.batch, answer.folded.fate_B
        take_T = np.flatnonzero(_BEGINS[batch.action_B] & (fate_B == Fate.applied) & (batch.item_B != 0))
        if not len(take_T):
            return {}
        place_T = self.latest.places(batch.user_ids, batch.user_B[take_T], batch.item_B[take_T])
        many = np.bincount(np.searchsorted(_BOUNDS, place_T, side="right"), minlength=len(PLACES))
        return dict(zip(PLACES, many.tolist(), strict=True))

    def stored(self, answer: Answer, taken: Mapping[str, int]) -> None:
        """A batch of events is stored, of which so much was taken."""
        self.metrics.events(answer.fate_R)
        self.metrics.consented(answer.decoded.batch.consent_B)
        self.metrics.taken(taken)


def _trace(slate: PublishedSlate) -> str | None:
    """The id of the trace that a slate's trigger belongs to, where that was sampled: no other can be looked at."""
    context = trace_context(slate.trigger.headers)
    return context.trace_id if context and context.sampled else None
