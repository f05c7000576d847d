"""What was shown many times without an answer sinks, and comes back with a take or with time."""

from typing import Any

import numpy as np
import pytest

from streams.contract.records import Slate
from streams.serving.policies import Policies
from streams.settings import Settings
from tests.streams.builders import DENIED, NOW_MS, Raw, Service, a_log, a_request, an_event, shown, slates_of, small

ITEMS = [f"i{n:03d}" for n in range(40)]
DAY_MS = 86_400_000
LIVED = a_log(300, items=40)


def a_service(items: int = 40, **slates: Any) -> Service:
    """300 events of twelve people are stored and learned; u1 has seen some of the items."""
    service = Service(small(slates={"trace_rate": 1.0, "candidates": 40} | slates))
    service.catalogue(*ITEMS[:items])
    service.live_through(LIVED)
    return service


def ask(service: Service, user: str = "u1", n: int = 10, **fields: Any) -> Slate:
    (slate,) = service.ask(a_request(0, user, n=n, **fields))
    return slate


def impressions(item: str, times: int, offset: int = 300, user: str = "u1") -> list[Raw]:
    return [an_event(offset + n, user, item, "impression") for n in range(times)]


def scores(slate: Slate) -> dict[str, float]:
    return {item.item_id: item.score for item in slate.items}


def test_a_thing_shown_ten_times_without_an_answer_sinks_below_everything_else() -> None:
    service = a_service()
    before = ask(service)
    answer = service.deliver(impressions(first := shown(before)[0], 10))
    after, event = ask(service, n=40), slates_of(answer)[-1]
    assert shown(after)[-1] == first
    assert shown(after)[:9] == shown(before)[1:]
    assert first not in shown(event)
    assert len(event.items) == 5


def test_each_impression_costs_places_and_the_slate_after_it_says_so() -> None:
    service = a_service(size=40, fatigue=0.05)
    first = shown(ask(service))[0]
    places = [shown(slate).index(first) for slate in slates_of(service.deliver(impressions(first, 10)))]
    assert places == sorted(places)
    assert places[0] < places[3] < places[-1] == 27


def test_one_impression_divides_the_score_by_one_and_a_half() -> None:
    service = a_service()
    before = scores(ask(service, n=40))
    item = list(before)[2]
    service.deliver(impressions(item, 1))
    after = scores(ask(service, n=40))
    assert after[item] == pytest.approx(before[item] / 1.5, rel=1e-2)
    assert [after[other] for other in before if other != item] == pytest.approx(
        [before[other] for other in before if other != item], rel=1e-2
    )


def test_a_click_brings_it_back_to_where_it_was() -> None:
    service = a_service()
    before = ask(service)
    item = shown(before)[0]
    service.deliver(impressions(item, 10))
    assert shown(ask(service))[0] != item
    service.deliver([an_event(310, "u1", item, "click")])
    assert shown(ask(service)) == shown(before)


def test_a_take_clears_what_was_counted_so_that_it_is_offered_again_where_repeats_are() -> None:
    service = a_service(repeat_surfaces=("home",))
    item = shown(ask(service))[0]
    service.deliver(impressions(item, 10))
    assert item not in shown(ask(service))
    service.deliver([an_event(310, "u1", item, "play")])
    assert not service.users.read(["u1"]).unanswered.held_U.any()
    assert item in shown(ask(service))


def test_time_brings_it_back() -> None:
    service = a_service(fatigue=0.05)
    before = ask(service)
    item = shown(before)[0]
    service.deliver(impressions(item, 10))
    places = []
    for days in (0, 3, 6, 12, 30):
        service.now_ms = NOW_MS + days * DAY_MS
        request = a_request(0, "u1", n=40, event_time=service.now_ms)._replace(timestamp=service.now_ms)
        places.append(shown(service.ask(request)[0]).index(item))
    assert places == sorted(places, reverse=True)
    assert places[0] > places[1] > places[2]
    assert places[-1] == 0


def test_where_nothing_else_is_left_it_is_shown_all_the_same_that_first_which_was_shown_least() -> None:
    service = a_service(items=8)
    rest = shown(ask(service, "new"))
    assert len(rest) == 8
    for n, item in enumerate(rest):
        service.deliver(impressions(item, 20 - n, offset=300 + 30 * n, user="new"))
    after = ask(service, "new")
    assert shown(after) == rest[::-1]
    assert max(item.score for item in after.items) <= -8


def test_what_sank_gives_its_place_among_the_candidates_to_others() -> None:
    """Ten are ranked; when all ten were shown too often, ten others are."""
    service = a_service(candidates=10, size=5)
    first = shown(ask(service))
    for n, item in enumerate(first):
        service.deliver(impressions(item, 9, offset=300 + 10 * n))
    second = shown(ask(service))
    assert len(first) == len(second) == 10
    assert not set(first) & set(second)


def test_who_does_not_consent_to_a_profile_is_served_as_if_nothing_was_shown() -> None:
    service = a_service()
    without = ask(service, consent=DENIED)
    for n, item in enumerate(shown(without)[:3]):
        service.deliver(impressions(item, 10, offset=300 + 10 * n))
    assert shown(ask(service, consent=DENIED)) == shown(without)
    assert shown(ask(service, personalised=False)) == shown(without)
    assert service.users.read(["u1"]).unanswered.held_U.tolist() == [3]


def test_impressions_without_consent_are_not_remembered() -> None:
    service = a_service()
    before = ask(service)
    item = shown(before)[0]
    service.deliver([an_event(300 + n, "u1", item, "impression", consent=DENIED) for n in range(10)])
    assert not service.users.read(["u1"]).unanswered.item_UW.size
    assert shown(ask(service)) == shown(before)


def test_who_is_forgotten_was_shown_nothing() -> None:
    service = a_service()
    service.deliver(impressions(ITEMS[0], 10))
    service.users.forget("u1")
    assert not service.users.read(["u1"]).unanswered.item_UW.size


def test_another_person_is_not_tired_of_it() -> None:
    service = a_service()
    mine, others = ask(service), ask(service, "u5")
    service.deliver(impressions(shown(mine)[0], 10))
    assert shown(ask(service, "u5")) == shown(others)


def test_turned_off_nothing_is_counted_and_slates_are_as_before() -> None:
    service = a_service(fatigue=0)
    before = ask(service)
    service.deliver(impressions(shown(before)[0], 10))
    assert not service.users.read(["u1"]).unanswered.item_UW.size
    assert shown(ask(service)) == shown(before)


def test_a_surface_may_have_its_own_fatigue() -> None:
    settings = small(policies={"front": {"fatigue": 0}, "news": {"fatigue": 3}})
    policies = Policies.of(settings)
    assert [policies.on(surface).fatigue for surface in ("front", "news", "home")] == [0, 3, 0.5]
    assert len({policies.on(surface).hash for surface in ("front", "news", "home")}) == 3
    assert not Policies.of(Settings(slates={"fatigue": 0})).tire  # type: ignore[arg-type]
    assert Policies.of(small(slates={"fatigue": 0}, policies={"news": {"fatigue": 3}})).tire
    service = Service(settings)
    service.catalogue(*ITEMS)
    service.live_through(LIVED)
    front, home = ask(service, surface="front"), ask(service)
    service.deliver(impressions(shown(home)[0], 10))
    assert shown(ask(service, surface="front")) == shown(front)
    assert shown(ask(service)) != shown(home)


def test_batches_of_one_and_of_many_make_the_same_slates_and_states() -> None:
    log = [raw for n, item in enumerate(ITEMS[:6] * 2) for raw in impressions(item, 4, offset=300 + 4 * n)]
    log[7], log[20] = an_event(307, "u1", ITEMS[1], "like"), an_event(320, "u1", ITEMS[0], "click")
    one, many = a_service(), a_service()
    whole = slates_of(one.deliver(log))
    single = [slate for raw in log for slate in slates_of(many.deliver([raw]))]
    assert [shown(slate) for slate in whole] == [shown(slate) for slate in single]
    assert one.states("u1") == many.states("u1")


def test_a_batch_delivered_again_counts_its_impressions_once() -> None:
    service = a_service()
    log = impressions(ITEMS[0], 5)
    service.deliver(log)
    once = service.states("u1")
    service.deliver(log)
    assert service.states("u1") == once


def test_a_trace_says_how_often_a_candidate_was_shown() -> None:
    service = a_service()
    item = shown(ask(service))[0]
    quiet = service.deliver([an_event(300, "u5", ITEMS[0], "view")]).traces[0]
    trace = service.deliver(impressions(item, 3, offset=301)).traces[-1]
    assert quiet.shown == ()
    assert dict(zip(trace.candidates, trace.shown, strict=True))[item] == pytest.approx(3, abs=0.01)
    assert np.count_nonzero(trace.shown) == 1
