"""Events of ads beside behaviour: applied like every event, counted for caps, and nothing organic sees them."""

from collections.abc import Callable

import numpy as np
import pytest

from embeddings.errors import StoreUnavailable
from embeddings.events import AD_FORMS, CONSENT_STORE, OF_ADS, Action, Fate
from embeddings.exposures import AdSeen
from embeddings.spend_memory import MemorySpendLedger
from streams.contract.decode import Decoded
from streams.serving.ad_events import AdEvents
from streams.serving.observation_writer import slate_hash
from tests.streams.adverts import a_decision, an_ad_event, called, decided, opened, sell
from tests.streams.builders import EVENTS, NOW_MS, Raw, Service, a_log, an_event, small, told

KEYS = (2, 4, 6, 8)


def an_ad(offset: int, user: str = "u1", kind: str = "impression", **fields: object) -> Raw:
    """An event of an ad for a film that is in the catalogue."""
    said = {"item": "i003", "decision_id": f"d{offset}", "event_time": NOW_MS - 1_000_000 + 1000 * offset} | fields
    return an_event(offset, user, kind=kind, **said)


def all_known(decoded: Decoded) -> AdSeen:
    """Every decision is known, whatever its event is."""
    return AdSeen(np.where(OF_ADS[decoded.batch.action_B, None], np.array(KEYS, np.uint32), 0).astype(np.uint32))


def a_service(ad_seen: Callable[[Decoded], AdSeen | None] = all_known, **more: int) -> Service:
    service = Service(small(), **more)
    service.catalogue(*(f"i{n:03d}" for n in range(60)))
    service.recommender.ad_seen = ad_seen
    return service


def with_ads(log: list[Raw]) -> list[Raw]:
    """The same events with those of ads between them, by the same people, of every kind."""
    kinds = [action.name for action in AD_FORMS]
    both = []
    for n, raw in enumerate(log):
        user = (raw.key or b"").decode()
        both += [raw._replace(offset=2 * n), an_ad(2 * n + 1, user, kinds[n % 8], event_time=NOW_MS - 10**6 + 1000 * n)]
    return both


def test_history_taste_fatigue_and_the_learners_counters_never_see_an_ads_events() -> None:
    alone, beside, log = a_service(), a_service(), a_log(100)
    for service, events in (
        (alone, [raw._replace(offset=2 * n) for n, raw in enumerate(log)]),
        (beside, with_ads(log)),
    ):
        for at in range(0, len(events), 100):
            service.learn(service.deliver(events[at : at + 100]))
    people = [f"u{n}" for n in range(12)]
    organic, both = alone.users.read(people), beside.users.read(people)
    for name in ("item_UH", "action_UH", "time_UH", "share_UH", "count_U"):
        np.testing.assert_array_equal(getattr(organic.states, name), getattr(both.states, name), err_msg=name)
    np.testing.assert_array_equal(organic.tastes.code_UD, both.tastes.code_UD)
    assert all(np.array_equal(one, two) for one, two in zip(organic.unanswered, both.unanswered, strict=True))
    assert all(np.array_equal(one, two) for one, two in zip(organic.seen, both.seen, strict=True))
    counted, beside_counted = (service.learner.counters.changed() for service in (alone, beside))
    names = (
        "item_N",
        "popularity_N4",
        "likes_N",
        "dislikes_N",
        "shown_N",
        "clicked_N",
        "last_taken_s_N",
        "first_seen_s_N",
    )
    for name in names:
        assert np.array_equal(getattr(counted, name), getattr(beside_counted, name)), name
    assert organic.exposures.seen_U.tolist() == [0] * 12
    assert both.exposures.seen_U.sum() == 13


def test_an_ads_event_is_applied_once_and_told_by_its_code() -> None:
    service = a_service()
    log = [
        an_ad(0, event_id="e"),
        an_ad(1, decision_id="d0", event_id="f"),
        an_ad(2, kind="click"),
        an_ad(3, kind="play"),
    ]
    answer = service.deliver(log)
    assert answer.folded.fate_B.tolist() == [Fate.applied, Fate.duplicate, Fate.applied, Fate.unknown_type]
    (observation,) = told(answer)
    assert observation.action_R.tolist() == [Action.ad_impression, Action.ad_click]
    assert not observation.item_R.any()
    assert service.deliver(log).folded.fate_B.tolist()[:3] == [Fate.replayed] * 3
    assert service.users.read(["u1"]).exposures.seen_U.tolist() == [1]
    assert service.users.marks([EVENTS])[EVENTS].totals[Fate.applied] == 2


def test_a_conversion_of_two_ads_is_told_to_the_learner_once() -> None:
    ledger = opened(MemorySpendLedger())
    sell(ledger, a_decision(1, advertiser="acme"), a_decision(2, advertiser="acme"))
    service = a_service(AdEvents(ledger=ledger, person=called, now_ms=lambda: NOW_MS).seen)
    log = [an_ad_event(n, n, "conversion", conversion_id="order 7") for n in (1, 2)]
    answer = service.deliver(log)
    assert answer.folded.fate_B.tolist() == [Fate.applied, Fate.duplicate]
    (observation,) = told(answer)
    assert observation.slate_R.tolist() == [slate_hash(decided(1))]
    assert service.users.marks([EVENTS])[EVENTS].totals[Fate.duplicate] == 1


def test_where_nobody_knows_a_decision_nothing_is_counted() -> None:
    service = Service(small())
    service.deliver([an_ad(0)])
    assert service.users.read(["u1"]).exposures.seen_U.tolist() == [0]


def test_while_decisions_cannot_be_looked_up_the_batch_waits() -> None:
    def unreachable(decoded: Decoded) -> AdSeen:
        raise StoreUnavailable("no ledger")

    service = a_service(unreachable)
    with pytest.raises(StoreUnavailable):
        service.deliver([an_ad(0)])
    service.recommender.ad_seen = all_known
    service.deliver([an_ad(0)])
    assert service.users.read(["u1"]).exposures.key_UX4.tolist() == [[list(KEYS)]]


def test_caps_are_counted_where_only_storing_is_allowed_and_nothing_else_is() -> None:
    service = a_service(default_consent=CONSENT_STORE)
    fates = service.deliver([an_ad(0), an_event(1, "u1", "i001")]).folded.fate_B.tolist()
    profiles = service.users.read(["u1"])
    assert fates == [Fate.applied, Fate.unconsented]
    assert (profiles.exposures.seen_U.tolist(), profiles.states.count_U.tolist()) == ([1], [0])
