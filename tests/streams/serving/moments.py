"""The last twenty events of a log, as the stages of serving meet them; nothing of it is stored."""

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embeddings.candidates import Retrieved
from streams.learning.learner import Learner
from streams.serving.filter import drop
from streams.serving.live_model import Stock
from streams.serving.policies import Policy
from streams.serving.query import query_of
from streams.serving.retrieve import retrieve
from streams.serving.values import Asked, Found, Query
from streams.settings import Settings
from tests.streams.builders import Service, a_log, small

LOG = a_log(320, items=40)
POSITIONS = 30
"""So many moments of people lie before and after these events."""


@cache
def a_service() -> Service:
    """With a catalogue of 40 and a snapshot of what 300 events taught."""
    service = Service(small(slates={"trace_rate": 1.0}))
    service.learner = Learner(service.settings)  # the whole model: its first weights speak for categories
    service.catalogue(*[f"i{n:03d}" for n in range(40)], categories=("odd",), year=1999)
    service.live_through(LOG[:300])
    return service


@dataclass
class Moment:
    """What is asked of the stock, and what each stage gives when it is."""

    asked: Asked
    stock: Stock
    settings: Settings

    @property
    def policy(self) -> Policy:
        return self.asked.policies[0]

    @property
    def query(self) -> Query:
        return query_of(self.asked, self.stock, self.settings)

    @property
    def retrieved(self) -> Retrieved:
        return retrieve(self.query, self.policy, self.stock, self.settings)

    @property
    def found(self) -> Found:
        return drop(self.retrieved, self.query, self.policy, self.asked, self.stock, self.settings)


def a_moment(*, blocked: int | None = None, **asked: Any) -> Moment:
    """`blocked` is a row that may be shown to nobody; other names change what is asked."""
    service = a_service()
    with service.serving.items.lock:
        stock = service.serving.current()
    if blocked is not None:
        blocked_N = stock.offer.blocked_N.copy()
        blocked_N[blocked] = True
        stock = replace(stock, offer=replace(stock.offer, blocked_N=blocked_N))
    return Moment(replace(service.respond(LOG[300:]).asked, **asked), stock, service.settings)


def none_seen(at: NDArray[np.intp], item_PK: NDArray[np.uint64]) -> NDArray[np.bool_]:
    return np.zeros(item_PK.shape, np.bool_)
