import pytest

from streams.contract.records import decode_event
from streams.serving.policies import ALL_BUT_BEGUN, Policies
from streams.settings import Settings
from tests.streams.builders import Service, a_log, a_request, an_event, shown, slates_of, small, told

ITEMS = [f"i{n:03d}" for n in range(40)]
LOG = a_log(300, items=40)
HOUR_S = 3_600


def a_service(**policies: dict[str, object]) -> Service:
    """300 events of twelve people are stored and learned; every item lasts an hour."""
    service = Service(small(policies=policies, slates={"trace_rate": 1.0}))
    service.catalogue(*ITEMS, length_s=HOUR_S)
    service.live_through(LOG)
    return service


def test_every_surface_without_a_policy_of_its_own_has_the_default_which_is_what_the_settings_say() -> None:
    settings = Settings()
    policy = Policies.of(settings).on("home")
    assert (policy.name, policy.size, policy.candidates) == (
        "default",
        settings.slates.size,
        settings.slates.candidates,
    )
    assert (policy.sources, policy.repeats, policy.age_limit) == (ALL_BUT_BEGUN, False, None)
    assert policy.next_item == settings.slates.objectives.next_item


def test_what_is_set_of_a_built_in_policy_leaves_the_rest_of_it() -> None:
    policy = Policies.of(small(policies={"continue_watching": {"size": 3}})).on("continue_watching")
    assert (policy.size, policy.sources, policy.repeats) == (3, ("begun",), True)


def test_the_hash_tells_policies_apart_and_nothing_else() -> None:
    def on_news(**said: object) -> int:
        return Policies.of(small(policies={"news": said})).on("news").hash

    others = [
        on_news(size=3),
        on_news(candidates=30),
        on_news(sources=["fresh"]),
        on_news(complete=1),
        on_news(age_limit=6),
        on_news(language="match"),
        on_news(exploration=0.1),
    ]
    assert on_news() == on_news(size=5) == on_news(language="any", exploration=0)
    assert len({on_news(), *others}) == 8


def test_what_was_begun_and_not_finished_is_offered_to_go_on_with() -> None:
    service = a_service()
    shares = {"i001": 0.09, "i002": 0.1, "i003": 0.5, "i004": 0.9, "i005": 0.91, "i006": 0.4, "i007": 0.5, "i009": 0.5}
    events = [an_event(300 + n, "fan", i, "progress", value=s * HOUR_S) for n, (i, s) in enumerate(shares.items())]
    events += [
        an_event(310, "fan", "i006", "complete"),
        an_event(311, "fan", "i007", "hide"),
        an_event(312, "fan", "i008"),
        an_event(313, "fan", "i009", "skip"),
    ]
    service.deliver(events)
    home, again = service.ask(a_request(0, "fan", n=20), a_request(1, "fan", surface="continue_watching"))
    assert set(shown(again)) == {"i002", "i003", "i004"}
    assert {item.source for item in again.items} == {"begun"}
    assert not set(shown(home)) & {*shares, "i008"}
    (stranger,) = service.ask(a_request(2, "nobody", surface="continue_watching"))
    assert shown(stranger) == []


def test_one_batch_is_answered_by_the_policy_of_each_surface() -> None:
    service = a_service(short={"size": 2}, all_of_it={"candidates": 39, "size": 30}, lists={"sources": ["trending"]})
    surfaces = ["home", "short", "all_of_it", "lists", "home"]
    slates = service.ask(*[a_request(n, "u1", surface=surface) for n, surface in enumerate(surfaces)])
    alone = a_service().ask(a_request(0, "u1"))[0]
    assert [len(slate.items) for slate in slates[:2]] == [5, 2]
    assert 20 < len(slates[2].items) <= 30
    assert shown(slates[0]) == shown(slates[4]) == shown(alone)
    assert [item.score for item in slates[0].items] == pytest.approx([item.score for item in alone.items], abs=1e-5)
    assert {item.source for item in slates[3].items} == {"trending"}
    assert len({slate.policy for slate in slates}) == 4


def test_nothing_above_the_limit_of_a_policy_is_eligible_whoever_looks() -> None:
    service = a_service(kids={"age_limit": 6})
    service.catalogue(*ITEMS[:20], age=12)
    kids, mine = service.ask(
        a_request(0, "u1", n=20, surface="kids"), a_request(1, "u1", n=20, surface="kids", context={"age_limit": 18})
    )
    assert shown(kids) == shown(mine)
    assert kids.items
    assert not set(shown(kids)) & set(ITEMS[:20])
    assert (kids.age_limit, mine.age_limit) == (6, 6)


def test_slates_traces_and_observations_say_the_policy() -> None:
    service = a_service(home={"size": 3})
    policy = service.recommender.scorer.policies.on("home")
    answer = service.deliver([an_event(300, "u1", "i039")])
    (slate,), (observation,) = slates_of(answer), told(answer)
    assert (len(slate.items), slate.policy, answer.traces[0].policy) == (3, policy.label, policy.label)
    assert observation.policy_L.tolist() == observation.policy_E.tolist() == [policy.hash]
    assert slate.slate_id != slates_of(a_service().deliver([an_event(300, "u1", "i039")]))[0].slate_id


def test_a_surface_that_repeats_gets_what_was_seen_on_events_too() -> None:
    service = a_service(home={"repeats": True})
    log = [an_event(300 + n, "fan", item) for n, item in enumerate(ITEMS)]
    assert shown(slates_of(service.deliver(log))[-1])
    assert not shown(slates_of(a_service().deliver(log))[-1])


def test_a_surface_of_what_is_popular_shows_it_to_whoever_looks() -> None:
    """Also to people with a taste: nothing is looked for by it there."""
    service = a_service(charts={"sources": ["popular"], "candidates": 60, "size": 40})
    mine, strangers = service.ask(*(a_request(n, user, surface="charts") for n, user in enumerate(("u1", "x"))))
    assert {place.source for place in (*mine.items, *strangers.items)} == {"popular"}
    assert set(shown(strangers)) == set(ITEMS)
    taken = {decode_event(raw.value or b"").item_id for raw in LOG if raw.key == b"u1"}
    assert set(shown(mine)) == set(ITEMS) - taken != set()


@pytest.mark.parametrize("source", ["fresh", "trending"])
def test_a_surface_of_one_list_goes_down_it_as_far_as_candidates_are_wanted(source: str) -> None:
    service = a_service(row={"sources": [source], "candidates": 40})
    service.deliver([an_event(300 + n, "fan", item) for n, item in enumerate(ITEMS[:30])])
    mine, strangers = service.ask(a_request(0, "fan", surface="row"), a_request(1, "nobody", n=30, surface="row"))
    assert [len(slate.items) for slate in (mine, strangers)] == [5, 30]
    assert set(shown(mine)) <= set(ITEMS[30:])


@pytest.mark.parametrize("kind", ["hide", "dislike"])
def test_what_was_refused_is_shown_nowhere_not_even_where_what_was_seen_is(kind: str) -> None:
    service = a_service(news={"candidates": 60, "size": 40}, home={"repeats": True, "candidates": 60, "size": 40})
    log = [an_event(300, "fan", "i001"), an_event(301, "fan", "i002"), an_event(302, "fan", "i001", kind)]
    answer = service.deliver(log)
    (asked,) = service.ask(a_request(0, "fan", surface="news"))
    assert set(shown(slates_of(answer)[1])) == set(ITEMS)
    assert set(shown(slates_of(answer)[2])) == set(shown(asked)) == set(ITEMS) - {"i001"}
    (strangers,) = service.ask(a_request(1, "fan", surface="news", personalised=False))
    assert "i001" in shown(strangers)
