"""What happened to ads: before a batch is folded the spend ledger confirms it and says which ads these were.

Impressions, clicks and all that follows name the `decision_id` of their slot. One call per batch turns what was
reserved into spending, counts, and returns the stored decisions: the levels of an impression (`AdDecision.levels`) are
folded into the person's state as an exposure. Confirmed, then stored, then `folded`: a batch that comes again repeats
all of it, and changes nothing.

    confirm --> fold, publish, store --> folded     what is out for a person counts against caps until the last step
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from embeddings.errors import AlreadyCounted, LedgerClosed, StoreUnavailable
from embeddings.events import OF_ADS, EventBatch, Fate, Source
from embeddings.exposures import AdSeen
from embeddings.spend import MOST_ROWS, ONE, Billable, Billing, Confirmed, Reservation, Room, SpendLedger, Tally, Window
from ranking.ads.exposed import level_name
from streams.contract.ad_records import AdDecision
from streams.contract.decode import Decoded
from streams.contract.records import Event, decode_ad, encode
from streams.serving.stages import epoch_ms

LEVELS = 4
_ANY = 1 << 30
_SPENDS = (Billing.billed, Billing.late)


class _Mark(Protocol):
    """How far a partition is stored."""

    @property
    def offset(self) -> int:
        """Of the last record stored, -1 before the first."""


class Heard(Protocol):
    """Told of every event of an ad: what happened, what became of it, and the micros that it spent."""

    def __call__(self, kind: str, billing: Billing, micros: int) -> object:
        """Count it."""


def nobody(user_id: str) -> str:
    """Nobody has a name in the ledger."""
    return ""


def unheard(kind: str, billing: Billing, micros: int) -> None:
    """Nobody counts."""


def reservation_of(
    decision: AdDecision, value: bytes, *, rooms: Sequence[Room] | None = None, version: str = ""
) -> Reservation:
    """What the ledger is to keep of a decision.

    Args:
        decision: a filled slot.
        value: its record on `ads`. It is kept without the user id: who it is for is said by `person`, a keyed hash.
        rooms: under the person's caps; without them the reservation is out at all of its levels, and fits always.
        version: see `Reservation.version`.
    """
    if rooms is None:
        rooms = [Room(level_name(level, key), _ANY) for level, key in enumerate(decision.levels)]
    micros, spends = amounts_of(decision)
    return Reservation(
        decision_id=decision.decision_id,
        key=f"{decision.campaign_id}/{decision.line_item_id}",
        windows=tuple(Window(*window) for window in decision.windows),
        counted=tuple(Window(*window) for window in decision.counted),
        micros=micros,
        spends=spends,
        billed_by=decision.billed_by or "impression",
        booked=tuple(Window(key, day, counts=True) for key, day in decision.booked),
        booked_by=decision.booked_by or "impression",
        holds=decision.holds or ONE,
        advertiser=decision.advertiser or "",
        decision=nameless(value, decision.user_id),
        expires_ms=decision.expires_ms,
        billed_until_ms=decision.billed_until_ms or None,
        kept_ms=decision.kept_ms,
        person=decision.person,
        version=version,
        rooms=tuple(rooms) if decision.person else (),
    )


def nameless(value: bytes, user_id: str) -> bytes:
    """The record of a decision without its user id, which stands right behind the decision's own."""
    return value.replace(b'"user_id":%b,' % encode(user_id), b"", 1) if user_id else value


def named(value: bytes, user_id: str) -> tuple[AdDecision, bytes]:
    """A decision that was kept, as it goes out to whom it is for: byte for byte as it went out first."""
    decision = decode_ad(value)
    if not user_id:
        return decision, value
    decision.user_id = user_id
    return decision, encode(decision)


def amounts_of(decision: AdDecision) -> tuple[int, int]:
    """What is reserved for a decision, and what it spends once it is billed, in micros of the campaign's currency."""
    micros = decision.price_micros if decision.reserved_micros is None else decision.reserved_micros
    if decision.spends_micros is not None:
        return micros, decision.spends_micros
    by_impression = decision.billed_by in ("", "impression")
    return micros, micros if by_impression else decision.event_micros


def billables_of(decoded: Decoded) -> tuple[NDArray[np.intp], list[Billable]]:
    """The rows of a batch that are events of ads, in order, and the same for the ledger.

    Rows that are not applied are among them: what was shown costs, whatever the person let us keep.
    """
    batch, events = decoded.batch, decoded.events
    row_A = np.flatnonzero(OF_ADS[batch.action_B])
    sources = [batch.sources[s] for s in batch.source_B[row_A].tolist()]
    rows = zip(row_A.tolist(), sources, batch.offset_B[row_A].tolist(), strict=True)
    return row_A, [_billable(events[row], s, offset) for row, s, offset in rows]


def _billable(event: Event, source: Source, offset: int) -> Billable:
    return Billable(event.decision_id or "", source, offset, event.type, event.conversion_id or "")


def stretches_of(decoded: Decoded) -> dict[Source, tuple[int, int]]:
    """First and last offset of each partition in a batch, with the records that have no row."""
    batch = decoded.batch
    found: dict[Source, tuple[int, int]] = {}
    for s, source in enumerate(batch.sources):
        offset_R = batch.offset_B[batch.source_B == s]
        if len(offset_R):
            found[source] = int(offset_R.min()), int(offset_R.max())
    for source, offset, _ in decoded.aside:
        first, last = found.get(source, (offset, offset))
        found[source] = min(first, offset), max(last, offset)
    return found


def confirm(
    ledger: SpendLedger,
    billables: Sequence[Billable],
    above: Mapping[Source, int],
    upto: Mapping[Source, int],
    *,
    now_ms: int,
) -> list[Confirmed]:
    """Confirm events, in as many calls as they take, and say how far these partitions were read.

    Args:
        ledger: that is told.
        billables: in offset order inside each partition.
        above: what was confirmed of each partition before.
        upto: how far it is read now; also of partitions without such events.
        now_ms: as of when; events after the end of their decision's billing window spend nothing.

    Raises:
        LedgerClosed: it has noted how far it has to come. Go on without.
        StoreUnavailable: call again with the same.
    """
    done, found = dict(above), list[Confirmed]()
    for first in range(0, max(len(billables), 1), MOST_ROWS):
        chunk, rest = billables[first : first + MOST_ROWS], billables[first + MOST_ROWS :]
        later = {one.source for one in rest}
        reach = {one.source: one.offset for one in chunk}  # the last one of each
        reach |= {
            source: last for source, last in upto.items() if source not in later and (source in reach or not rest)
        }
        found += _confirmed(ledger, chunk, done, reach, now_ms)
        done |= reach
    return found


def _confirmed(
    ledger: SpendLedger, chunk: Sequence[Billable], above: dict[Source, int], reach: Mapping[Source, int], now_ms: int
) -> list[Confirmed]:
    """One call, again from where it has counted already."""
    names = {f"{source.topic}/{source.partition}": source for source in reach}
    while True:
        tallies = [
            Tally(source=s, above=min(above.get(s, last), last), upto=last, counts={}) for s, last in reach.items()
        ]
        try:
            return ledger.confirm(chunk, tallies, now_ms=now_ms)
        except AlreadyCounted as known:
            if above.get(names[known.source]) == known.covered:
                raise
            above[names[known.source]] = known.covered


@dataclass(slots=True, kw_only=True)
class AdEvents:
    """Confirms the ad events of one lane. Called from one thread at a time.

    Attributes:
        ledger: on connections of its own.
        heard: is told of every event.
        person: what the ledger calls a user (`ad_requests.person_of`).
        active: whether anything is sold. Until it was once, batches without ads are not told.
        now_ms: wall clock.
    """

    ledger: SpendLedger
    heard: Heard = unheard
    person: Callable[[str], str] = nobody
    active: Callable[[], bool] = lambda: True
    now_ms: Callable[[], int] = epoch_ms
    _told: dict[Source, int] = field(init=False, default_factory=dict)
    """How far each partition is confirmed, as far as this worker knows."""
    _begun: bool = field(init=False, default=False)
    _exposed: dict[tuple[Source, int], str] = field(init=False, default_factory=dict)
    """Decisions whose impressions are in states that are not stored yet, by where these were read."""

    def claimed(self, marks: Mapping[Source, _Mark]) -> None:
        """Partitions begin where the store is: up to there they were confirmed. What was not stored is void."""
        self._told |= {source: mark.offset for source, mark in marks.items()}
        self._exposed.clear()

    def seen(self, decoded: Decoded) -> AdSeen | None:
        """Confirm a batch, and return what its people saw of ads; None where there was nothing, or it is not known.

        While the ledger is closed nothing is known: it hears of these events when it is rebuilt, from the log. The
        states will not count them, and they stay out for their people, until the decision is forgotten.

        Raises:
            StoreUnavailable: the batch is retried whole; it is confirmed once.
        """
        row_A, billables = billables_of(decoded)
        self._begun = self._begun or bool(billables) or self.active()
        if not self._begun:
            return None
        stretches = stretches_of(decoded)
        above = {source: min(self._told.get(source, first - 1), first - 1) for source, (first, _) in stretches.items()}
        upto = {source: last for source, (_, last) in stretches.items()}
        latest_ms = int(decoded.published_ms_B[row_A].max(initial=0)) or self.now_ms()
        try:
            confirmed = confirm(self.ledger, billables, above, upto, now_ms=min(latest_ms, self.now_ms()))
        except LedgerClosed:
            confirmed = []
        self._told |= upto
        return self._known(decoded.batch, row_A, billables, confirmed) if confirmed else None

    def _known(
        self,
        batch: EventBatch,
        row_A: NDArray[np.intp],
        billables: Sequence[Billable],
        confirmed: Sequence[Confirmed],
    ) -> AdSeen | None:
        """The keys of exposures; one that its person's state does not hold stays out, or no cap would count it.

        So it is where the state may not, and where the event is somebody else's than the decision (who logged in in
        between, say): then it counts for both. A conversion that is another decision's is a duplicate: nobody learns
        of it.
        """
        levels, decided_s = dict[int, tuple[int, ...]](), dict[int, int]()
        for row, one, became in zip(row_A.tolist(), billables, confirmed, strict=True):
            decision = decode_ad(became.decision) if became.decision else None
            spends = decision is not None and became.billing in _SPENDS
            self.heard(one.kind, became.billing, amounts_of(decision)[1] if decision is not None and spends else 0)
            if became.billing is Billing.elsewhere and batch.refused_B[row] == Fate.applied:
                batch.refused_B[row] = Fate.duplicate
            if became.exposes and decision is not None and batch.refused_B[row] == Fate.applied:
                if decision.person and self.person(batch.user_ids[batch.user_B[row]]) == decision.person:
                    self._exposed[one.source, one.offset] = one.decision_id
                if len(decision.levels) == LEVELS:
                    levels[row], decided_s[row] = decision.levels, decision.decided_ms // 1000
        if not levels:
            return None
        key_B4, decided_s_B = np.zeros((len(batch), LEVELS), np.uint32), np.zeros(len(batch), np.int64)
        key_B4[list(levels)], decided_s_B[list(decided_s)] = list(levels.values()), list(decided_s.values())
        return AdSeen(key_B4, decided_s_B)

    def stored(self, marks: Mapping[Source, _Mark]) -> None:
        """States up to these marks are stored: what they count is not out any more.

        A ledger that does not answer hears of it after the next store; until then they count twice, which shows less.
        """
        done = [at for at in self._exposed if at[0] in marks and at[1] <= marks[at[0]].offset]
        for first in range(0, len(done), MOST_ROWS):
            chunk = done[first : first + MOST_ROWS]
            try:
                self.ledger.folded([self._exposed[at] for at in chunk])
            except StoreUnavailable:
                return
            except LedgerClosed:
                pass
            for at in chunk:
                del self._exposed[at]
