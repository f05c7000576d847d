"""Slates as records: chosen items with reasons, versions and times, ready for the topic and for Redis."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeVar

import msgspec
import numpy as np
import xxhash
from numpy.typing import NDArray

from embeddings.candidates import Proposed
from embeddings.eligibility import Viewer
from embeddings.events import Source
from embeddings.ids import ids_of
from embeddings.items import Items
from ranking.features import COLUMNS
from ranking.reasons import Reason
from streams.contract import records
from streams.contract.ad_records import AdDecision
from streams.contract.cloudevents import Headers, echo, event_headers
from streams.contract.fields import UNKNOWN
from streams.contract.messages import Outgoing
from streams.contract.records import Degraded
from streams.serving.ad_decisions import Decision
from streams.serving.live_model import LiveModel
from streams.serving.policies import Policy
from streams.serving.stages import Stamps
from streams.serving.values import Scored, Slates
from streams.settings import Settings

_SOURCES = tuple(
    "+".join(str(bit.name) for bit in Proposed if mask & bit) or UNKNOWN for mask in range(1 << len(Proposed))
)
NOWHERE = -1
"""The place of a slate that has no items."""
_NO_ROWS, _NO_SOURCES = np.zeros(0, np.int32), np.zeros(0, np.uint8)
T = TypeVar("T", bound=np.generic)
_NO_COLUMNS = np.empty(0, np.uint64), np.empty((0, COLUMNS), np.float32), np.empty(0)
_NOT_FOR_PAGES: dict[str, Any] = {
    **{"person": "", "windows": (), "counted": (), "levels": (), "reserved_micros": None, "spends_micros": None},
    **{"booked": (), "booked_by": "", "holds": 0, "losses": {}, "lost_to": {}},
}
_REASONS = tuple((reason.name,) if reason else () for reason in Reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """What a slate answers: the input record, whose it is, where it is shown; `published_ms` is when it was written."""

    slate_id: str = field(init=False)
    user_id: str
    source: Source
    offset: int
    event_ms: int
    published_ms: int
    viewer: Viewer
    policy: Policy
    size: int
    headers: Headers = ()
    request_id: str | None = None
    degraded: Degraded | None = None
    reply_to: str | None = None

    @property
    def surface(self) -> str:
        """Where the slate is shown."""
        return self.viewer.surface

    def __post_init__(self) -> None:
        object.__setattr__(self, "slate_id", slate_id_of(self.source, self.offset, self.surface, self.policy.hash))


@dataclass(frozen=True, slots=True)
class PublishedSlate:
    """A slate as it goes out; `at` is its place among the scored slates.

    `item_N` are the ids of its places, 0-padded and 0 where ads stand, `x_NF` their features, `propensity_N` with which
    probability each item stands in its place; places beyond what was asked for may be filled.

    Of the items that were asked for and stand there: `row_N` their rows, `source_N` who proposed them, `explored` how
    many chance put there. `filled`: places that hold an item or an ad; `known`: was it made of a history; `taught`: in
    the ranker's order?
    """

    trigger: Trigger
    value: bytes
    item_N: NDArray[np.uint64]
    x_NF: NDArray[np.float32]
    propensity_N: NDArray[np.float64]
    at: int
    sampled: bool
    row_N: NDArray[np.int32]
    source_N: NDArray[np.uint8]
    explored: int
    filled: int
    known: bool
    taught: bool
    ads: Sequence[Decision] = ()
    """What became of the places for ads that its request names, or that its surface has."""
    kept: bytes | None = None
    """What is stored of a page with ads: all but these, for they are of this moment; None where it is all of it."""

    @property
    def slate_id(self) -> str:
        """What the slate is called."""
        return self.trigger.slate_id


class Seats(NamedTuple):
    """Where everything stands on a page that brings ads: the ads that do, and the places of organic items, in order."""

    shown: tuple[Decision, ...]
    place_N: NDArray[np.intp]


def write_slates(
    triggers: Sequence[Trigger],
    scored: Scored,
    at_Q: NDArray[np.intp],
    items: Items,
    settings: Settings,
    stamps: Stamps,
    now_ms: int,
    sold: Mapping[int, Sequence[Decision]] | None = None,
    seats: Mapping[int, Seats] | None = None,
) -> list[PublishedSlate]:
    """The slates of Q triggers as records, in their order; `at_Q` says where each is among the scored ones.

    Who asked for no items (`NOWHERE`) gets none, and the ads.

    `sold` are the ads of those triggers that asked for any, or whose surface brings some, by their place; `seats` is
    how pages are laid that have ads among their items.
    """
    s = scored.slates
    id_QN = ids_of(s.row_QN, items.ids.ids_N)
    told = s.reason_QN, s.because_QN, s.category_QN, s.there_QN, s.propensity_QN, s.explored_QN
    columns = [each.tolist() for each in (s.row_QN, s.score_QN, s.source_QN, *told)]
    size_Q: list[int] = np.count_nonzero(s.row_QN >= 0, axis=1).tolist()
    explored_QN = columns[-1]
    known_Q = np.any(scored.query.row_PH[s.position_Q] >= 0, axis=1)
    out = []
    for n, (trigger, q) in enumerate(zip(_honest(triggers, scored.model), at_Q.tolist(), strict=True)):
        chosen = zip(*(column[q][: trigger.size] for column in columns), strict=True) if q != NOWHERE else ()
        page = seats.get(n) if seats else None
        placed = zip(page.place_N.tolist(), chosen, strict=False) if page else enumerate(chosen)
        slate = _slate(
            trigger, _places(placed, items, trigger.viewer.country), scored, stamps, settings.slates.ttl_s, now_ms
        )
        ads, kept = sold.get(n, ()) if sold else (), None
        if shown := page.shown if page else ads:
            kept = records.encode(slate) if page else None
            slate.ads = tuple(_for_page(decision.record) for decision in shown)
        sampled = q != NOWHERE and int(trigger.slate_id[:6], 16) < settings.observe.shown * (1 << 24)
        item_N, x_NF, propensity_N = _told(s, id_QN, q, page)
        held = min(size_Q[q], len(page.place_N) if page else trigger.size) if q != NOWHERE else 0
        out.append(
            PublishedSlate(
                trigger=trigger,
                value=records.encode(slate),
                item_N=item_N,
                x_NF=x_NF,
                propensity_N=propensity_N,
                at=q,
                sampled=sampled,
                row_N=s.row_QN[q, :held] if held else _NO_ROWS,
                source_N=s.source_QN[q, :held] if held else _NO_SOURCES,
                explored=sum(explored_QN[q][:held]) if held else 0,
                filled=held + (len(page.shown) if page else 0),
                known=q != NOWHERE and bool(known_Q[q]),
                taught=scored.model.ranker.learned,
                ads=ads,
                kept=kept,
            )
        )
    return out


def _told(
    s: Slates, id_QN: NDArray[np.uint64], q: int, page: Seats | None
) -> tuple[NDArray[np.uint64], NDArray[np.float32], NDArray[np.float64]]:
    """What the learner is told of a slate's places: ids, features, propensities."""
    if q == NOWHERE:
        return _NO_COLUMNS
    item_N, x_NF, propensity_N = id_QN[q], s.x_QNF[q], s.propensity_QN[q]
    if page is None or not page.shown:
        return item_N, x_NF, propensity_N
    return _seated(item_N, page.place_N), _seated(x_NF, page.place_N), _seated(propensity_N, page.place_N)


def _for_page(decision: AdDecision) -> AdDecision:
    """What a page is told of a decision: what it shows and why, not how the house accounts for it."""
    return msgspec.structs.replace(decision, **_NOT_FOR_PAGES)


def _seated(told_N: NDArray[T], place_N: NDArray[np.intp]) -> NDArray[T]:
    """What is told of N items, by the places of a page: nothing stands in those of ads."""
    out_N = np.zeros_like(told_N)
    out_N[place_N] = told_N[: len(place_N)]
    return out_N


def _honest(triggers: Sequence[Trigger], model: LiveModel) -> Sequence[Trigger]:
    """Triggers that say what their slates lack: before the first snapshot, all but what is popular."""
    if model.version:
        return triggers
    return [trigger if trigger.degraded else replace(trigger, degraded="popular") for trigger in triggers]


def _places(
    places: Iterable[tuple[int, tuple[int, float, int, int, int, int, bool, float, bool]]], items: Items, country: str
) -> tuple[records.SlateItem, ...]:
    """The places that are filled, by number. Propensities are null where there was nothing to draw."""
    names, categories = items.names, items.category_names
    return tuple(
        records.SlateItem(
            item_id=names[row],
            position=n,
            score=score,
            source=_SOURCES[mask],
            reasons=_REASONS[reason] if held < 0 else (f"similar_to_recent:{names[held]}",),
            because=names[held] if held >= 0 else None,
            category=categories[category] if category >= 0 else None,
            country=country if there else None,
            propensity=propensity if propensity < 1 else None,
            explored=explored,
        )
        for n, (row, score, mask, reason, held, category, there, propensity, explored) in places
        if row >= 0
    )


def _slate(
    trigger: Trigger, places: tuple[records.SlateItem, ...], scored: Scored, stamps: Stamps, ttl_s: int, now_ms: int
) -> records.Slate:
    version = str(scored.model.version)
    return records.Slate(
        slate_id=trigger.slate_id,
        user_id=trigger.user_id,
        trigger="request" if trigger.request_id else "event",
        surface=trigger.surface,
        request_id=trigger.request_id,
        items=places,
        model_version=version,
        index_version=version,
        policy=trigger.policy.label,
        country=trigger.viewer.country or None,
        age_limit=trigger.viewer.limit,
        language=trigger.viewer.language or None,
        degraded=trigger.degraded,
        ranked=scored.model.ranker.learned,
        expires_at=now_ms + ttl_s * 1000,
        event_ms=trigger.event_ms,
        received_ms=stamps.received_ms,
        decoded_ms=stamps.decoded_ms,
        folded_ms=stamps.folded_ms,
        retrieved_ms=stamps.retrieved_ms,
        ranked_ms=stamps.ranked_ms,
        published_ms=now_ms,
        topic=trigger.source.topic,
        partition=trigger.source.partition,
        offset=trigger.offset,
    )


def slate_record(slate: PublishedSlate, topic: str) -> Outgoing:
    """A slate on its topic, keyed by user, with CloudEvents headers and the place of its trigger."""
    trigger = slate.trigger
    passed = echo(*trigger.source, trigger.offset, trigger.headers)
    headers = event_headers(slate.slate_id, "marquee.slate.v1", "marquee", trigger.event_ms, passed)
    return Outgoing(topic, trigger.user_id.encode(), slate.value, headers)


def ad_records(slate: PublishedSlate, topic: str) -> list[Outgoing]:
    """The decisions about a slate's places for ads on their topic, keyed by user."""
    trigger = slate.trigger
    passed = echo(*trigger.source, trigger.offset, trigger.headers)
    return [
        Outgoing(
            topic,
            trigger.user_id.encode(),
            decision.value,
            event_headers(decision.record.decision_id, "marquee.ad.v1", "marquee", trigger.event_ms, passed),
        )
        for decision in slate.ads
    ]


def slate_id_of(source: Source, offset: int, surface: str, policy: int) -> str:
    """What a slate is called: the same for the same input, surface and policy, however often it is answered."""
    return xxhash.xxh3_128_hexdigest(f"{source.topic}\0{source.partition}\0{offset}\0{surface}\0{policy}".encode())


def source_name(bits: int) -> str:
    """The sources of a candidate in words."""
    return _SOURCES[bits]
