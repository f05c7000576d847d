"""Rows become columns: ids, codes, times, consent; what is wrong with a row, and why it must not be applied."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh32_intdigest as _xxh32

from embeddings.events import AD_FORMS, CONSENT_STORE, Action, EventBatch, Fate
from embeddings.ids import ITEM_MASK, NO_ITEM, item_id, murmur2
from embeddings.jit import kernel
from embeddings.spend import slate_decision_id
from streams.contract.consent import CONSENT_LEARN
from streams.contract.event_rows import Rows
from streams.contract.fields import LAST_KEPT_MS
from streams.contract.parsing import Rules
from streams.contract.records import Event
from streams.contract.serialisers import all_fit, unfit

_RATING = 255
_CODES = {action.name: int(action) for action in Action if action not in AD_FORMS.values()} | {"rating": _RATING}
_AD_CODES = {action.name: int(of_ad) for action, of_ad in AD_FORMS.items()}
_LAST_ITEM_ACTION, _FIRST_OF_ADS = int(Action.impression) - 1, int(Action.ad_complete)
_DISLIKE, _PLAY = int(Action.dislike), int(Action.play)
_UNKNOWN_TYPE, _UNCONSENTED = int(Fate.unknown_type), int(Fate.unconsented)
_UNFIT = ITEM_MASK + 1


class _ItemIds(dict[str | None, int]):
    """Item names to ids, remembered for the last 200,000 names; no name is no item, one that is unfit is `_UNFIT`."""

    def __missing__(self, name: str | None) -> int:
        if len(self) >= 200_000:
            self.clear()
        found = self[name] = NO_ITEM if not name else _UNFIT if unfit(name) else item_id(name)
        return found


_item_ids = _ItemIds()


class Wrong(IntEnum):
    """What is wrong with a row, so that it is put aside."""

    fine = 0
    future = 1
    seconds = 2
    no_item = 3
    wrapped = 4
    no_value = 5
    misrouted = 6
    no_decision = 7


_FUTURE, _SECONDS, _NO_ITEM = int(Wrong.future), int(Wrong.seconds), int(Wrong.no_item)
_WRAPPED, _NO_VALUE, _MISROUTED = int(Wrong.wrapped), int(Wrong.no_value), int(Wrong.misrouted)
_NO_DECISION = int(Wrong.no_decision)
_UNNAMED = 254
"""In place of an action: an ad's event that does not say of which."""


@dataclass(frozen=True, slots=True)
class Columns:
    """B rows as columns. `wrong_B` is a `Wrong`; `misdated` counts publish times that cannot be."""

    batch: EventBatch
    wrong_B: NDArray[np.uint8]
    published_ms_B: NDArray[np.int64]
    misdated: int


def columns_of(rows: Rows, rules: Rules, now_ms: int) -> Columns:
    """The columns of rows; those that are wrong have one too.

    Args:
        rows: B of them.
        rules: limits, consent, partition counts.
        now_ms: wall clock, for rows whose records say no publish time.
    """
    events = rows.events
    seen: dict[str, int] = {}
    user_B = np.array([seen.setdefault(user, len(seen)) for user in rows.users], np.int32)
    item_B = np.array([_item_ids[event.item_id] for event in events], np.uint64)
    if not all_fit(seen):
        item_B[np.array([unfit(user) is not None for user in seen])[user_B]] = _UNFIT
    action_B = np.array([_CODES.get(event.type, 0) for event in events], np.uint8)
    ads_R = [r for r, event in enumerate(events) if event.decision_id or event.ad]
    action_B[ads_R] = [_AD_CODES.get(events[r].type, 0) if _named(events[r]) else _UNNAMED for r in ads_R]
    value_B = np.array([event.value for event in events], np.float32)
    time_ms_B = np.array([event.event_time for event in events], np.int64)
    published_ms_B = np.array([record.timestamp for record in rows.records], np.int64)
    consent_B = _consents(events, rules)
    wrong_B, refused_B, misdated = _judge(
        *(item_B, action_B, value_B, time_ms_B, published_ms_B, consent_B, _foreign(rows, tuple(seen), user_B, rules)),
        *(now_ms, rules.first_ms, rules.max_future_ms, float(rules.dislike_at_most)),
    )
    batch = EventBatch(
        user_ids=tuple(seen),
        sources=rows.sources,
        user_B=user_B,
        item_B=item_B,
        action_B=action_B,
        value_B=value_B,
        time_s_B=time_ms_B // 1000,
        source_B=rows.source_B,
        offset_B=np.array([record.offset for record in rows.records], np.int64),
        dedupe_B=_dedupe(rows, ads_R),
        consent_B=consent_B,
        refused_B=refused_B,
    )
    return Columns(batch, wrong_B, published_ms_B, misdated)


def _named(event: Event) -> bool:
    """Whether an event of an ad says of which; the decision about a slot of a slate has its id from these."""
    if not event.decision_id and event.slate_id and event.slot is not None:
        event.decision_id = slate_decision_id(event.slate_id, event.slot)
    return bool(event.decision_id)


@kernel
def _judge(
    item_B: NDArray[np.uint64],
    action_B: NDArray[np.uint8],
    value_B: NDArray[np.float32],
    time_ms_B: NDArray[np.int64],
    published_ms_B: NDArray[np.int64],
    consent_B: NDArray[np.uint8],
    foreign_B: NDArray[np.bool_],
    now_ms: int,
    first_ms: int,
    max_future_ms: int,
    dislike_at_most: float,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], int]:
    """What is wrong with each row, why it must not be applied, and how many are misdated.

    In place: event times are clamped to the publish time, for which event time or now stands where it is none, ratings
    become plays or dislikes, values that are not numbers become 0, and an event of an ad names no item.
    """
    rows, misdated = len(item_B), 0
    wrong_B, refused_B = np.zeros(rows, np.uint8), np.zeros(rows, np.uint8)
    for r in range(rows):
        if not first_ms <= published_ms_B[r] <= LAST_KEPT_MS:
            published_ms_B[r] = min(time_ms_B[r], now_ms)
            misdated += 1
        elif published_ms_B[r] - now_ms > max_future_ms:
            misdated += 1
        early = time_ms_B[r] < first_ms
        ahead_ms = time_ms_B[r] - published_ms_B[r]
        time_ms_B[r] = min(time_ms_B[r], published_ms_B[r])
        action, missing = action_B[r], np.isnan(value_B[r])
        if ahead_ms > max_future_ms:
            wrong_B[r] = _FUTURE
        elif action == _RATING and missing:
            wrong_B[r] = _NO_VALUE
        elif item_B[r] == NO_ITEM and (0 < action <= _LAST_ITEM_ACTION or action == _RATING):
            wrong_B[r] = _NO_ITEM
        elif item_B[r] == _UNFIT:
            wrong_B[r] = _WRAPPED
        elif action == _UNNAMED:
            wrong_B[r] = _NO_DECISION
        elif early:
            wrong_B[r] = _SECONDS
        elif foreign_B[r]:
            wrong_B[r] = _MISROUTED
        if action == _RATING:
            action_B[r] = _DISLIKE if value_B[r] <= dislike_at_most else _PLAY
        need = CONSENT_LEARN
        if _FIRST_OF_ADS <= action < _RATING:
            need, item_B[r] = CONSENT_STORE, NO_ITEM
        if action == 0:
            refused_B[r] = _UNKNOWN_TYPE
        elif (consent_B[r] & need) != need:
            refused_B[r] = _UNCONSENTED
        if missing:
            value_B[r] = 0
    return wrong_B, refused_B, misdated


def _foreign(rows: Rows, users: tuple[str, ...], user_B: NDArray[np.int32], rules: Rules) -> NDArray[np.bool_]:
    """Rows in a partition that is not murmur2's for their user, or was not when they were read first."""
    counts = [rules.partitions.get(source.topic, 0) for source in rows.sources]
    if not any(counts) or not users:
        return np.zeros(len(user_B), np.bool_)
    hash_B = murmur2([user.encode() for user in users])[user_B]
    count_B = np.array(counts, np.uint32)[rows.source_B]
    here_B = np.array([source.partition for source in rows.sources], np.uint32)[rows.source_B]
    foreign_B: NDArray[np.bool_] = (count_B > 0) & (hash_B % np.maximum(count_B, 1) != here_B)
    for s in [s for s, source in enumerate(rows.sources) if rules.homes.changed(source)]:
        row_R = np.flatnonzero(rows.source_B == s)
        offset_R = np.array([rows.records[row].offset for row in row_R.tolist()], np.int64)
        foreign_B[row_R] |= rules.homes.left(rows.sources[s], offset_R, hash_B[row_R])
    return foreign_B


def _consents(events: list[Event], rules: Rules) -> NDArray[np.uint8]:
    consents = [event.consent for event in events]
    if consents.count(None) == len(consents):
        return np.full(len(consents), rules.judge.default, np.uint8)
    return np.array([rules.judge.bits(consent) for consent in consents], np.uint8)


def _dedupe(rows: Rows, ads_R: list[int]) -> NDArray[np.uint32]:
    """32-bit hashes of `ce_source` NUL `ce_id`, else of `event_id`; 0 where a record has neither.

    Of an ad each type happens once, whatever its records are called; a conversion happens as often as it has ids.
    """
    idents = [
        identity or (event.event_id.encode() if event.event_id else b"")
        for identity, event in zip(rows.identities, rows.events, strict=True)
    ]
    for r in ads_R:
        if (event := rows.events[r]).type != Action.conversion.name:
            idents[r] = f"{event.decision_id}\0{event.type}".encode()
    return np.array([(_xxh32(ident) or 1) if ident else 0 for ident in idents], np.uint32)
