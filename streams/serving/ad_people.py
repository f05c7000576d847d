"""What is known of the people who ask for ads, as far as each may be looked at."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embeddings.exposures import Exposures
from embeddings.spend import InFlight
from embeddings.state_columns import UserStates
from ranking.ads.exposed import Exposures as Counted
from ranking.ads.exposed import Out
from ranking.ads.exposed import People as Exposed
from streams.serving.ad_values import AdAsk


@dataclass(frozen=True, slots=True, kw_only=True)
class People:
    """What is known of the people who ask, a row for each of A asks.

    Attributes:
        states: who they are; `exposures` which ads they saw.
        known_A: could that be read?
        flights: what is out for each; None where that is not known.
    """

    states: UserStates
    exposures: Exposures
    known_A: NDArray[np.bool_]
    flights: Sequence[InFlight | None]


def personal(asks: Sequence[AdAsk], people: People) -> NDArray[np.bool_]:
    """Whose profile may be looked at, and is there. Shape (A,)."""
    return np.array([ask.personal for ask in asks], np.bool_) & people.known_A


def exposed_of(asks: Sequence[AdAsk], people: People) -> Exposed:
    """What caps are judged by: only of who may be counted, whose state was read and of whom it is known what is out."""
    states = people.states
    counted_A = np.array([bool(ask.person) for ask in asks], np.bool_)
    out_A = np.array([flight is not None for flight in people.flights], np.bool_)
    return Exposed(
        Counted._make(people.exposures),
        Out.of([flight.out if flight else None for flight in people.flights]),
        states.last_s_U,
        np.array([ask.now_ms // 1000 for ask in asks], np.int64),
        counted_A & out_A & people.known_A,
    )
