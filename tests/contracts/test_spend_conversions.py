"""One conversion is of one ad, whichever events name, in every `SpendLedger`: memory, Valkey and Redis 7 alike."""

import random
from typing import Any

from embeddings.events import Source
from embeddings.spend import Billable, Billing, Confirmed, Reservation, SpendLedger, Verdict
from embeddings.spend_outcomes import CONVERSIONS_MS
from tests.contracts import test_spend_ledger as ledgers
from tests.contracts.test_spend_ledger import Backend
from tests.embeddings.spending import EVENTS, HOUR, LINE, NOW, a_reservation, confirm, ids, lease, reserve, sums, tally

backend, ledger = ledgers.backend, ledgers.ledger
BILLED, AGAIN, ELSEWHERE, OTHER = Billing.billed, Billing.again, Billing.elsewhere, Billing.other
LONG = NOW + 90 * 24 * HOUR


def sold(ledger: SpendLedger, *numbers: int, **fields: Any) -> list[Reservation]:
    """Ads of an advertiser, each of which reserves 1 and spends 20 when it brings a conversion."""
    usual = {"billed_by": "conversion", "spends": 20, "advertiser": "acme", "kept_ms": LONG} | fields
    made = [a_reservation(n, 1, **usual) for n in numbers]
    lease(ledger, 20)
    assert reserve(ledger, *made) == [Verdict.reserved] * len(made)
    return made


def bought(
    *events: tuple[int, str], first: int = 0, source: Source = EVENTS, kind: str = "conversion"
) -> list[Billable]:
    """Conversions as (number of the ad, id), at one offset after the other."""
    names = ids([n for n, _ in events])
    return [Billable(names[at], source, first + at, kind, said) for at, (_, said) in enumerate(events)]


def told(ledger: SpendLedger, *events: tuple[int, str], now: int = NOW, **more: Any) -> list[Billing]:
    return confirm(ledger, bought(*events, **more), now_ms=now)


def counted(ledger: SpendLedger) -> tuple[int, int]:
    """Spent, and conversions counted."""
    return sums(ledger)[3], ledger.totals().counts[LINE].get("conversions", 0)


def test_one_conversion_that_names_two_ads_is_paid_for_once(ledger: SpendLedger) -> None:
    sold(ledger, 1, 2)
    assert told(ledger, (2, "order 7"), (1, "order 7")) == [BILLED, ELSEWHERE]
    assert counted(ledger) == (20, 1)
    assert sums(ledger)[2] == 1, "the other one is out still"


def test_a_batch_that_comes_again_is_told_whose_it_is_and_spends_nothing(ledger: SpendLedger) -> None:
    """Whoever was killed between confirming and saving is told again whose the conversion is."""
    sold(ledger, 1, 2)
    rows, tallies = bought((1, "order 7"), (2, "order 7")), [tally(-1, 1)]
    first = ledger.confirm(rows, tallies, now_ms=NOW)
    assert first == [Confirmed(BILLED, b"decision 1"), Confirmed(ELSEWHERE, b"decision 2")]
    for _ in range(2):
        again = ledger.confirm(rows, tallies, now_ms=NOW + 1)
        assert again == [Confirmed(AGAIN, b"decision 1"), Confirmed(ELSEWHERE, b"decision 2")]
    assert counted(ledger) == (20, 1)


def test_workers_of_two_partitions_pay_for_it_once(backend: Backend, ledger: SpendLedger) -> None:
    sold(ledger, 1, 2)
    assert told(ledger, (1, "order 7")) == [BILLED]
    assert told(backend.open(), (2, "order 7"), source=Source(EVENTS.topic, 1)) == [ELSEWHERE]
    assert counted(ledger) == (20, 1)


def test_another_conversion_of_the_same_ad_is_free_to_be_anothers(ledger: SpendLedger) -> None:
    sold(ledger, 1, 2)
    assert told(ledger, (1, "order 7"), (1, "order 8"), (2, "order 8")) == [BILLED, AGAIN, BILLED]
    assert counted(ledger) == (40, 2)


def test_an_ad_that_another_one_was_preferred_to_may_bring_one_of_its_own(ledger: SpendLedger) -> None:
    sold(ledger, 1, 2)
    assert told(ledger, (1, "order 7"), (2, "order 7"), (2, "order 8")) == [BILLED, ELSEWHERE, BILLED]
    assert counted(ledger) == (40, 2)


def test_without_an_id_each_ad_has_its_own(ledger: SpendLedger) -> None:
    sold(ledger, 1, 2)
    assert told(ledger, (1, ""), (2, "")) == [BILLED, BILLED]


def test_what_other_advertisers_call_theirs_does_not_matter(ledger: SpendLedger) -> None:
    sold(ledger, 1)
    sold(ledger, 2, advertiser="bolt")
    assert told(ledger, (1, "1001"), (2, "1001")) == [BILLED, BILLED]


def test_only_conversions_are_told_apart_by_it(ledger: SpendLedger) -> None:
    sold(ledger, 1, 2)
    assert told(ledger, (1, "order 7"), (2, "order 7"), kind="click") == [OTHER, OTHER]
    assert told(ledger, (2, "order 7"), first=2) == [BILLED]


def test_what_nobody_decided_has_no_conversion(ledger: SpendLedger) -> None:
    sold(ledger, 1)
    assert told(ledger, (9, "order 7"), (1, "order 7")) == [Billing.unknown, BILLED]


def test_one_that_comes_too_late_to_be_paid_for_is_its_ads_all_the_same(ledger: SpendLedger) -> None:
    sold(ledger, 1, billed_until_ms=NOW + 1)
    sold(ledger, 2)
    assert told(ledger, (1, "order 7"), (2, "order 7"), now=NOW + 2) == [Billing.too_late, ELSEWHERE]
    assert counted(ledger) == (0, 1)


def test_it_is_known_as_long_as_any_ad_can_name_it(ledger: SpendLedger) -> None:
    """An ad that was shown just before the conversion may be named for as long as the longest window."""
    sold(ledger, 1, kept_ms=NOW + HOUR)
    sold(ledger, 2)
    assert told(ledger, (1, "order 7")) == [BILLED]
    ledger.sweep(now_ms=LONG)
    assert told(ledger, (2, "order 7"), now=LONG) == [ELSEWHERE]
    assert LONG < NOW + CONVERSIONS_MS


def test_ids_come_back_with_the_events_when_it_is_rebuilt(backend: Backend, ledger: SpendLedger) -> None:
    made = sold(ledger, 1, 2, 3)
    before = bought((1, "order 7"), (2, "order 7"), (3, "order 8"))
    confirm(ledger, before[:2], [tally(-1, 1)])
    published = ledger.totals()
    confirm(ledger, before[2:], [tally(1, 2)])
    backend.wipe()
    ledger.rebuild(published)
    reserve(ledger, *made, decided=True)
    assert confirm(ledger, before[:2], [tally(-1, 1)]) == [Billing.known, ELSEWHERE]
    assert confirm(ledger, before[2:], [tally(1, 2)]) == [BILLED]
    assert ledger.reopen() == {}
    assert told(ledger, (2, "order 8"), (2, "order 7"), first=3) == [ELSEWHERE, ELSEWHERE]
    assert counted(ledger) == (40, 2)


def test_whatever_comes_in_any_order_each_id_is_of_one_ad_of_its_advertiser(ledger: SpendLedger) -> None:
    draw, whose = random.Random(5), dict[tuple[int, str], int]()
    lease(ledger, 20)
    for n in range(8):
        made = a_reservation(n, 1, billed_by="conversion", advertiser=f"a{n % 2}", kept_ms=LONG)
        assert reserve(ledger, made) == [Verdict.reserved]
    events = [(draw.randrange(8), draw.choice(["", "o1", "o2", "o3"])) for _ in range(200)]
    done, expected = set[int](), list[Billing]()
    for n, name in events:
        free = n not in done and (not name or whose.setdefault((n % 2, name), n) == n)
        expected.append(AGAIN if n in done else BILLED if free else ELSEWHERE)
        done |= {n} if free else set()
    assert set(expected) == {BILLED, AGAIN, ELSEWHERE}
    assert told(ledger, *events[:50]) + told(ledger, *events[50:], first=50) == expected
    assert counted(ledger) == (len(done), len(done))
