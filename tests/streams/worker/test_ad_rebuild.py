"""A ledger that lost everything, or its tail, has the same money and counts once rebuilt, and sells nothing before."""

from dataclasses import replace

import pytest
from aiokafka.errors import KafkaConnectionError
from hypothesis import given
from hypothesis import strategies as st

from embeddings.errors import LedgerClosed
from embeddings.events import Source
from embeddings.spend import Totals, Verdict, Want
from embeddings.spend_memory import Book, MemorySpendLedger
from streams.contract.records import encode
from streams.serving.ad_events import AdEvents, reservation_of
from streams.worker.ad_figures import Figures
from streams.worker.ad_rebuild import Rebuild, Resigned, moments
from tests.streams.adverts import (
    DAY_MS,
    LIFE,
    LINE,
    RULES,
    Topics,
    a_decision,
    an_ad_event,
    called,
    opened,
    out,
    read,
    sell,
    spent,
)
from tests.streams.builders import EVENTS, NOW_MS, Raw, an_event

SECOND = Source("events", 1)
WANT = Want(LINE, (LIFE,), 500)


class House:
    """A ledger, the topics, and the lanes that read and write them."""

    def __init__(self) -> None:
        self.book, self.topics = Book(), Topics()
        self.ledger = MemorySpendLedger(self.book)
        self.lane = AdEvents(ledger=self.ledger, person=called, now_ms=lambda: NOW_MS)
        opened(self.ledger)

    def decide(self, *numbers: int, **fields: object) -> None:
        decisions = [a_decision(n, **fields) for n in numbers]
        sell(self.ledger, *decisions)
        self.topics.ads += decisions

    def happen(self, *log: Raw, source: Source = EVENTS) -> None:
        """Events come, and a lane reads them."""
        self.topics.events.setdefault(source, []).extend(log)
        self.lane.seen(read(*log, source=source))

    def publish(self) -> None:
        figures = Figures.of(self.topics.published.records.values())
        figures.take(figures.changed(self.ledger.totals(), {}, {}, NOW_MS))
        self.topics.published = figures

    def lose(self) -> None:
        vars(self.book).update(vars(Book()))

    async def rebuild(self, leads: bool = True) -> Rebuild:
        rebuild = Rebuild(
            ledger=self.ledger,
            log=self.topics,
            rules=RULES,
            leads=lambda: leads,
            now_ms=lambda: NOW_MS,
            reach_ms=7 * DAY_MS,
        )
        await rebuild.run(self.topics.published)
        return rebuild

    def money(self) -> tuple[int, int]:
        """Spent and reserved."""
        one = self.ledger.totals().windows[LIFE]
        return one.spent, one.reserved


@pytest.fixture
def house() -> House:
    return House()


def same(totals: Totals) -> Totals:
    """What must not change: no lease outlives a loss, life and number are new, and what was counted of nobody's."""
    windows = {window: one._replace(leased=0) for window, one in totals.windows.items()}
    counts = {
        key: {name: many for name, many in of.items() if name not in ("reserved", "released", "invalid")}
        for key, of in totals.counts.items()
    }
    counts = {key: of for key, of in counts.items() if of}
    return replace(totals, epoch="", number=0, windows=windows, counts=counts)


async def test_what_was_spent_before_and_after_the_last_figures_is_spent_once(house: House) -> None:
    house.decide(1, 2, 3)
    house.happen(an_ad_event(0, 1), an_ad_event(1, 1, "click"))
    house.publish()
    house.decide(4)
    house.happen(an_ad_event(2, 2), an_event(3), an_ad_event(4, 4), an_ad_event(5, 4, "viewable"))
    before = house.ledger.totals()
    house.lose()
    with pytest.raises(LedgerClosed):
        house.ledger.totals()
    rebuild = await house.rebuild()
    assert (rebuild.decisions, rebuild.events, house.money()) == (4, 5, (30, 10))
    assert same(house.ledger.totals()) == same(before)
    assert spent(house.ledger) == 30


async def test_nothing_is_sold_until_it_is_reopened(house: House) -> None:
    house.publish()
    house.lose()
    new = a_decision("new")
    made = [reservation_of(new, encode(new))]
    assert house.ledger.reserve("w", made, now_ms=NOW_MS)[0].verdict is Verdict.closed
    house.topics.breaks = [KafkaConnectionError("away")]
    with pytest.raises(KafkaConnectionError):
        await house.rebuild()
    assert house.ledger.closed() == "rebuilding"
    assert house.ledger.reserve("w", made, now_ms=NOW_MS)[0].verdict is Verdict.closed
    await house.rebuild()
    assert house.ledger.closed() is None


async def test_a_first_start_reads_no_events(house: House) -> None:
    """Years of events lie there when somebody books a first campaign."""
    house.lose()
    house.topics.events[EVENTS] = [an_event(n) for n in range(9)]
    assert house.lane.seen(read(*house.topics.events[EVENTS])) is None
    await house.rebuild()
    assert not {"events", "more"} & set(house.topics.asked)
    assert (house.ledger.closed(), house.ledger.totals().offsets) == (None, {EVENTS: 8})


async def test_events_that_came_while_it_was_closed_are_billed(house: House) -> None:
    house.decide(1, 2)
    house.publish()
    house.lose()
    house.happen(an_ad_event(0, 1))
    house.happen(an_ad_event(0, 2), source=SECOND)
    await house.rebuild()
    assert (house.money(), house.ledger.totals().offsets) == ((20, 0), {EVENTS: 0, SECOND: 0})
    house.happen(an_ad_event(1, 1))
    assert house.money() == (20, 0)


async def test_events_that_come_during_the_rebuild_have_it_wait_for_them(house: House) -> None:
    house.decide(1, 2)
    house.happen(an_ad_event(0, 1))
    house.publish()
    house.lose()
    reserve = house.ledger.reserve

    def meanwhile(*args, **named):  # type: ignore[no-untyped-def]
        answers = reserve(*args, **named)
        house.ledger.reserve = reserve  # type: ignore[method-assign]
        house.lane.seen(read(an_event(1)))  # not on the topic yet when its end was asked for
        house.lane.seen(read(an_ad_event(2, 2)))
        return answers

    house.ledger.reserve = meanwhile  # type: ignore[method-assign]
    await house.rebuild()
    assert (house.ledger.closed(), house.ledger.totals().offsets) == (None, {EVENTS: 2})


async def test_a_tail_that_was_lost_is_read_again(house: House) -> None:
    house.decide(1, 2, 3)
    house.happen(an_ad_event(0, 1))
    house.publish()
    house.happen(an_ad_event(1, 2))
    house.book.why = "rewound"
    await house.rebuild()
    assert house.money() == (20, 10)


async def test_without_any_figures_everything_that_lies_there_counts(house: House) -> None:
    house.decide(1, 2)
    house.happen(an_ad_event(0, 1), an_ad_event(1, 1, "click"))
    house.lose()
    await house.rebuild()
    assert house.money() == (10, 10)
    assert house.ledger.totals().counts[LINE]["clicks"] == 1


async def test_decisions_that_nobody_can_bill_any_more_are_left_out(house: House) -> None:
    house.decide(1, expires_ms=NOW_MS - 9, kept_ms=NOW_MS - 5)
    house.topics.ads.append(a_decision(2, filled=False))
    house.publish()
    house.lose()
    assert (await house.rebuild()).decisions == 0


async def test_a_conversion_from_before_the_loss_is_still_the_one_ads(house: House) -> None:
    house.decide(1, 2, 3, billed_by="conversion", spends_micros=50, advertiser="acme")
    bought = [an_ad_event(n, n, "conversion", conversion_id=name) for n, name in ((1, "o1"), (2, "o1"), (3, "o2"))]
    house.happen(*bought[:2])
    house.publish()
    house.happen(*bought[2:])
    house.lose()
    await house.rebuild()
    assert house.money() == (100, 10)
    house.happen(an_ad_event(4, 2, "conversion", conversion_id="o2"))
    assert (house.money(), house.ledger.totals().counts[LINE]["conversions"]) == ((100, 10), 2)


async def test_what_is_out_for_people_is_out_again(house: House) -> None:
    house.decide(1)
    house.publish()
    house.lose()
    await house.rebuild()
    assert out(house.ledger) == [1, 1, 1, 1]


async def test_whoever_does_not_lead_any_more_leaves_it_to_the_next(house: House) -> None:
    house.publish()
    house.lose()
    with pytest.raises(Resigned):
        await house.rebuild(leads=False)
    assert house.ledger.closed() == "lost"


async def test_the_billing_window_is_judged_as_of_when_an_event_came(house: House) -> None:
    house.decide(1, 2, kept_ms=NOW_MS + 1_000)
    house.publish()
    house.lose()
    house.topics.events[EVENTS] = [
        an_ad_event(0, 1, timestamp=NOW_MS - 7_200_000),
        an_ad_event(1, 2, timestamp=NOW_MS + 2_000),
    ]
    rebuild = Rebuild(
        ledger=house.ledger,
        log=house.topics,
        rules=RULES,
        leads=lambda: True,
        now_ms=lambda: NOW_MS + DAY_MS,
        reach_ms=7 * DAY_MS,
    )
    for decision in house.topics.ads:
        decision.decided_ms = NOW_MS - 7_500_000
    await rebuild.run(house.topics.published)
    assert house.ledger.totals().windows[LIFE].spent == 10


def test_records_are_confirmed_minute_by_minute() -> None:
    log = [an_event(n, timestamp=NOW_MS + at) for n, at in enumerate((0, 60_000, 60_001, 500_000))]
    assert [[record.offset for record in some] for some in moments(log)] == [[0, 1], [2], [3]]
    assert list(moments([])) == []


KINDS = st.sampled_from(["decide", "impression", "click", "publish", "lose", "rewind"])


@given(st.lists(st.tuples(KINDS, st.integers(0, 5), st.integers(0, 1)), max_size=30))
async def test_whatever_is_lost_when_the_money_is_that_of_a_ledger_that_lost_nothing(
    steps: list[tuple[str, int, int]],
) -> None:
    """Two houses live the same; one of them loses its ledger now and then, and rebuilds it."""
    houses = House(), House()
    made, offsets = set[int](), {0: 0, 1: 0}
    for house in houses:
        house.publish()
    for what, n, partition in steps:
        if what in ("impression", "click") and n not in made:
            continue
        for number, house in enumerate(houses):
            if what == "decide" and n not in made:
                house.ledger.lease("w", [WANT], now_ms=NOW_MS, until_ms=NOW_MS + DAY_MS)
                house.decide(n)
            elif what in ("impression", "click"):
                house.happen(an_ad_event(offsets[partition], n, what), source=Source("events", partition))
            elif what == "publish":
                house.publish()
            elif what in ("lose", "rewind") and number == 0:
                house.lose() if what == "lose" else setattr(house.book, "why", "rewound")
                await house.rebuild()
        made |= {n} if what == "decide" else set()
        offsets[partition] += what in ("impression", "click")
    assert houses[0].money() == houses[1].money()
    assert same(houses[0].ledger.totals()).counts == same(houses[1].ledger.totals()).counts
