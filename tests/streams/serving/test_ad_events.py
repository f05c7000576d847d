"""Events of ads are confirmed once before they are folded, whatever comes again, and say whose exposure they are."""

from dataclasses import dataclass

import pytest

from embeddings.errors import LedgerClosed, StoreUnavailable
from embeddings.events import Fate, Source
from embeddings.spend import KINDS, MOST_ROWS, Billing, Confirmed, Tally
from embeddings.spend_memory import Book, MemorySpendLedger
from streams.contract.records import encode
from streams.serving.ad_events import AdEvents, amounts_of, billables_of, named, reservation_of, stretches_of
from tests.streams.adverts import LEVELS, LINE, a_decision, an_ad_event, called, decided, opened, out, read, sell, spent
from tests.streams.builders import DENIED, EVENTS, NOW_MS, Raw, an_event

OTHER = Source("events", 1)


@dataclass
class Mark:
    offset: int


class Ledger(MemorySpendLedger):
    """Fails as it is told, before it does anything, and remembers how far it was told of."""

    def __init__(self, book: Book | None = None) -> None:
        super().__init__(book)
        self.errors: list[Exception] = []
        self.tallies: list[list[Tally]] = []

    def confirm(self, billables, tallies=(), *, now_ms):  # type: ignore[no-untyped-def]
        if self.errors:
            raise self.errors.pop(0)
        self.tallies.append(list(tallies))
        return super().confirm(billables, tallies, now_ms=now_ms)

    def folded(self, decision_ids):  # type: ignore[no-untyped-def]
        if self.errors:
            raise self.errors.pop(0)
        super().folded(decision_ids)


@pytest.fixture
def ledger() -> Ledger:
    ledger = Ledger()
    opened(ledger)
    sell(ledger, a_decision(1), a_decision(2))
    return ledger


def events_of(ledger: MemorySpendLedger) -> AdEvents:
    return AdEvents(ledger=ledger, person=called, now_ms=lambda: NOW_MS)


def keys(ads: AdEvents, *log: Raw) -> list[tuple[int, ...]]:
    seen = ads.seen(read(*log))
    return [] if seen is None else [tuple(row) for row in seen.key_B4.tolist()]


NOTHING = (0, 0, 0, 0)


def test_an_impression_spends_and_is_an_exposure_and_nothing_else_is(ledger: Ledger) -> None:
    log = [an_event(0), an_ad_event(1, 1), an_ad_event(2, 1, "click"), an_ad_event(3, "never")]
    assert keys(events_of(ledger), *log) == [NOTHING, LEVELS, NOTHING, NOTHING]
    assert spent(ledger) == 10
    counts = ledger.totals().counts
    assert (counts[LINE]["impressions"], counts[LINE]["clicks"], counts[""]["invalid"]) == (1, 1, 1)


def test_every_kind_of_event_is_counted_under_its_name(ledger: Ledger) -> None:
    log = [an_ad_event(n, 1, kind) for n, kind in enumerate(KINDS)]
    events_of(ledger).seen(read(*log))
    counts = ledger.totals().counts[LINE]
    assert {name: counts[name] for name in KINDS.values()} == dict.fromkeys(KINDS.values(), 1)


def test_a_batch_that_comes_again_says_the_same_and_spends_nothing(ledger: Ledger) -> None:
    log = [an_ad_event(0, 1), an_event(1), an_ad_event(2, 2)]
    ads = events_of(ledger)
    first = keys(ads, *log)
    assert keys(ads, *log) == keys(events_of(ledger), *log) == first
    assert (spent(ledger), ledger.totals().counts[LINE]["impressions"]) == (20, 2)


def test_a_batch_that_was_counted_in_part_goes_on_where_that_ended(ledger: Ledger) -> None:
    events_of(ledger).seen(read(an_ad_event(0, 1), an_event(1)))
    longer = events_of(ledger)
    longer.claimed({EVENTS: Mark(-1)})
    assert keys(longer, an_ad_event(0, 1), an_event(1), an_ad_event(2, 2)) == [LEVELS, NOTHING, LEVELS]
    assert (spent(ledger), ledger.totals().offsets) == (20, {EVENTS: 2})


def test_a_second_impression_of_a_decision_is_no_second_exposure(ledger: Ledger) -> None:
    assert keys(events_of(ledger), an_ad_event(0, 1), an_ad_event(1, 1)) == [LEVELS, NOTHING]


def test_batches_without_ads_say_how_far_they_were_read(ledger: Ledger) -> None:
    ads = events_of(ledger)
    ads.claimed({EVENTS: Mark(-1)})
    for offset in (0, 7):  # what lies between was compacted away, or belongs to a transaction
        assert keys(ads, an_event(offset)) == []
    assert ledger.totals().offsets == {EVENTS: 7}
    assert [[(t.above, t.upto) for t in call] for call in ledger.tallies] == [[(-1, 0)], [(0, 7)]]


def test_dead_letters_are_read_too(ledger: Ledger) -> None:
    decoded = read(Raw(3, b"{"), an_event(4), Raw(9, b"["))
    assert stretches_of(decoded) == {EVENTS: (3, 9)}
    events_of(ledger).seen(decoded)
    assert ledger.totals().offsets == {EVENTS: 9}


def test_a_ledger_behind_the_store_is_closed(ledger: Ledger) -> None:
    """What the store has was confirmed before it was stored: a ledger that does not know of it has forgotten."""
    ads = events_of(ledger)
    ads.seen(read(an_event(0)))
    ads.claimed({EVENTS: Mark(20)})
    assert keys(ads, an_ad_event(21, 1)) == []
    assert ledger.closed() == "rewound"


def test_out_for_the_person_until_the_state_is_stored(ledger: Ledger) -> None:
    ads = events_of(ledger)
    ads.seen(read(an_ad_event(0, 1), an_ad_event(1, 2)))
    assert out(ledger) == [2, 2, 2, 2]
    ads.stored({OTHER: Mark(5), EVENTS: Mark(0)})
    assert out(ledger) == [1, 1, 1, 1]
    ads.stored({EVENTS: Mark(1)})
    assert out(ledger) == []


def test_one_that_no_state_may_hold_stays_out_so_that_its_cap_still_counts_it(ledger: Ledger) -> None:
    ads = events_of(ledger)
    assert keys(ads, an_ad_event(0, 1, consent=DENIED), an_ad_event(1, 2)) == [NOTHING, LEVELS]
    ads.stored({EVENTS: Mark(1)})
    assert (spent(ledger), out(ledger)) == (20, [1, 1, 1, 1])


def test_what_was_read_again_after_the_store_is_folded_then(ledger: Ledger) -> None:
    """Killed between the store and `folded`: the records come again, and their marks are stored already."""
    events_of(ledger).seen(read(an_ad_event(0, 1)))
    heir = events_of(ledger)
    heir.claimed({EVENTS: Mark(0)})
    assert keys(heir, an_ad_event(0, 1)) == [LEVELS]
    heir.stored({EVENTS: Mark(0)})
    assert out(ledger) == [1, 1, 1, 1]


def test_what_was_dropped_is_not_folded(ledger: Ledger) -> None:
    ads = events_of(ledger)
    ads.seen(read(an_ad_event(0, 1)))
    ads.claimed({EVENTS: Mark(-1)})
    ads.stored({EVENTS: Mark(5)})
    assert out(ledger) == [2, 2, 2, 2]


def test_a_ledger_that_is_away_has_the_batch_again_and_a_closed_one_not(ledger: Ledger) -> None:
    ads = events_of(ledger)
    ledger.errors = [StoreUnavailable("away")]
    with pytest.raises(StoreUnavailable):
        ads.seen(read(an_ad_event(0, 1)))
    ledger.errors = [LedgerClosed("lost")]
    assert ads.seen(read(an_ad_event(0, 1))) is None
    assert keys(ads, an_ad_event(0, 1)) == [LEVELS]


def test_a_ledger_that_is_away_after_the_store_hears_of_it_later(ledger: Ledger) -> None:
    ads = events_of(ledger)
    ads.seen(read(an_ad_event(0, 1)))
    ledger.errors = [StoreUnavailable("away")]
    ads.stored({EVENTS: Mark(0)})
    assert out(ledger) == [2, 2, 2, 2]
    ads.stored({EVENTS: Mark(0)})
    assert out(ledger) == [1, 1, 1, 1]


def test_more_events_than_one_call_takes_are_told_in_several(ledger: Ledger) -> None:
    log = [an_ad_event(n, "never") for n in range(MOST_ROWS + 2)]
    ads = events_of(ledger)
    assert ads.seen(read(*log, an_event(MOST_ROWS + 2))) is None
    assert [[(t.above, t.upto) for t in call] for call in ledger.tallies] == [
        [(-1, MOST_ROWS - 1)],
        [(MOST_ROWS - 1, MOST_ROWS + 2)],
    ]
    assert ledger.totals().counts[""]["invalid"] == MOST_ROWS + 2


def test_an_event_that_came_in_time_spends_however_late_it_is_read(ledger: Ledger) -> None:
    decision = a_decision(1)
    late = AdEvents(ledger=ledger, person=called, now_ms=lambda: decision.kept_ms + 5)
    late.seen(read(an_ad_event(0, 1)))
    assert spent(ledger) == 10
    late.seen(read(an_ad_event(1, 2, timestamp=decision.kept_ms + 1)))
    assert (spent(ledger), ledger.totals().counts[LINE]["billed_too_late"]) == (10, 1)


def test_whoever_counts_is_told_what_each_event_spent(ledger: Ledger) -> None:
    said: list[tuple[str, Billing, int]] = []
    ads = events_of(ledger)
    ads.heard = lambda *event: said.append(event)
    ads.seen(read(an_ad_event(0, 1), an_ad_event(1, 1, "click"), an_ad_event(2, "never")))
    assert said == [
        ("impression", Billing.billed, 10),
        ("click", Billing.other, 0),
        ("impression", Billing.unknown, 0),
    ]


def test_a_click_is_paid_where_it_was_sold_so() -> None:
    decision = a_decision("c", 3, billed_by="click", event_micros=500)
    assert (amounts_of(decision), amounts_of(a_decision("i", 3))) == ((3, 500), (3, 3))
    assert amounts_of(a_decision("e", 3, reserved_micros=4, spends_micros=5)) == (4, 5)
    ledger = opened(Ledger())
    sell(ledger, decision)
    ads = AdEvents(ledger=ledger, person=called, now_ms=lambda: NOW_MS)
    ads.seen(read(an_ad_event(0, "c")))
    assert spent(ledger) == 0
    ads.seen(read(an_ad_event(1, "c", "click")))
    assert spent(ledger) == 500


def test_one_conversion_that_names_two_ads_is_paid_for_once_and_nobody_learns_of_the_second() -> None:
    """Also where the batch comes again to another worker: killed between the ledger and the store."""
    ledger = opened(Ledger())
    cpa = {"billed_by": "conversion", "spends_micros": 500, "advertiser": "acme"}
    sell(
        ledger,
        a_decision("click", 3, **cpa),
        a_decision("view", 3, **cpa),
        a_decision("bolt", 3, **cpa | {"advertiser": "bolt"}),
    )
    names = ("click", "view", "bolt")
    log = [an_ad_event(at, name, "conversion", conversion_id="order 7") for at, name in enumerate(names)]
    for _ in range(2):
        lane, decoded = events_of(ledger), read(*log)
        for _ in range(2):
            lane.seen(decoded)
            assert decoded.batch.refused_B.tolist() == [Fate.applied, Fate.duplicate, Fate.applied]
    assert (spent(ledger), ledger.totals().counts[LINE]["conversions"]) == (1_000, 2)


def test_one_that_may_not_be_stored_is_told_as_such_whosever_it_is(ledger: Ledger) -> None:
    decoded = read(*(an_ad_event(n, n, "conversion", conversion_id="o", consent=DENIED) for n in (1, 2)))
    events_of(ledger).seen(decoded)
    assert decoded.batch.refused_B.tolist() == [Fate.unconsented] * 2


def test_a_reservation_is_the_decision_that_was_published_without_its_person() -> None:
    decision = a_decision(1, windows=(("c/l", ""), ("c", "2026-11-27")), billed_until_ms=NOW_MS + 9)
    made = reservation_of(decision, value := encode(decision))
    assert named(made.decision, "ann") == (decision, value)
    assert b"ann" not in made.decision
    assert (made.key, made.billed_until_ms) == (LINE, NOW_MS + 9)
    assert [room.level for room in made.rooms] == ["0:000010", "1:000020", "2:000030", "3:000040"]
    assert reservation_of(a_decision(1, person=""), b"").rooms == ()


def test_only_what_names_a_decision_is_of_an_ad() -> None:
    _, billables = billables_of(read(an_event(0, kind="impression", slate_id="s", slot=1), an_ad_event(1, 1)))
    assert [(one.decision_id, one.offset, one.kind) for one in billables] == [(decided(1), 1, "impression")]
    assert Confirmed(Billing.unknown, b"").exposes is False
