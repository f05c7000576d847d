"""What may be shown to a viewer, through the whole of serving."""

import numpy as np
import pytest

from streams.contract.records import Context
from streams.serving.values import Found
from streams.serving.viewers import context_code
from tests.streams.builders import Service, a_log, a_request, an_event, shown, slates_of, small

LATER_S = 86_400
EARLY = [f"i{n:03d}" for n in range(300)]


def a_service(share: float) -> Service:
    """300 items that people take, of which only the last share is in its window."""
    service = Service(small(slates={"candidates": 60, "size": 10}, retrieval={"fresh": 0}))
    closed = int((1 - share) * len(EARLY))
    service.catalogue(*EARLY)
    service.live_through(a_log(1500, items=300))
    now_s = service.now_ms // 1000
    service.catalogue(*EARLY[:closed], available_from_s=now_s + LATER_S)
    service.catalogue(*EARLY[closed:], available_from_s=now_s - 30 * LATER_S)
    return service


def personal(found: list[Found]) -> int:
    """Candidates that the vector search or a neighbour proposed."""
    return min(int((each.candidates.source_PK & 3 > 0).sum(1).min()) for each in found)


def test_with_most_items_outside_their_window_a_person_gets_as_many_personal_candidates() -> None:
    service = a_service(0.25)
    answer = service.respond([an_event(9_000, "u1", "i001")])
    assert personal(answer.scored.found) >= 55
    assert {int(name[1:]) >= 225 for slate in slates_of(answer) for name in shown(slate)} == {True}


def test_a_window_that_opens_is_noticed_without_any_record() -> None:
    service = a_service(0.01)
    before = shown(slates_of(service.respond([an_event(9_000, "u1", "i001")]))[0])
    service.now_ms += LATER_S * 1000
    after = shown(slates_of(service.respond([an_event(9_000, "u1", "i001", timestamp=service.now_ms)]))[0])
    assert {int(name[1:]) >= 297 for name in before} == {True}
    assert len(after) == 10 > len(before)


@pytest.fixture
def service() -> Service:
    service = Service()
    names = [f"i{n:03d}" for n in range(40)]
    service.catalogue(*names[:10])
    service.catalogue(*names[10:20], territories=("DE",))
    service.catalogue(*names[20:30], age=16)
    service.catalogue(*names[30:], surfaces=("tv",))
    service.live_through(a_log(300, items=40))
    return service


def groups(service: Service, **fields: object) -> set[int]:
    """Which tens of items the slate of a request is of."""
    (slate,) = service.ask(a_request(1, "u1", n=20, exclude=["i000"], **fields))
    return {int(name[1:]) // 10 for name in shown(slate)}


def test_a_request_says_where_it_is_and_how_old_its_viewers_are(service: Service) -> None:
    nobody = {"context": {"country": "FR", "age_limit": 12}, "surface": "home"}
    assert groups(service, **nobody) == {0}
    assert 1 in groups(service, **nobody | {"context": {"country": "de", "age_limit": 12}})
    assert 2 in groups(service, **nobody | {"context": {"country": "FR", "age_limit": 16}})
    assert 3 in groups(service, **nobody | {"surface": "tv"})


def test_classes_in_one_batch_do_not_mix(service: Service) -> None:
    events = [an_event(900 + n, f"u{n}", "i000", context={"country": "DE" if n % 2 else "FR"}) for n in range(10)]
    answer = service.respond(events)
    for slate in slates_of(answer):
        assert slate.country in ("DE", "FR")
        assert slate.country == "DE" or not {int(name[1:]) // 10 for name in shown(slate)} & {1}
    rows = answer.scored.slates.row_QN
    assert np.isin(rows, np.arange(10, 20)).any()


def test_a_worker_that_never_saw_the_removal_does_not_serve_what_a_snapshot_knows() -> None:
    before = Service()
    before.catalogue(*[f"i{n:03d}" for n in range(20)])
    before.live_through(a_log(300, items=20))
    after = Service(shelf=before.shelf)
    after.serving.items.catalogue_unread = True
    after.catalogue(*[f"i{n:03d}" for n in range(5, 20)])
    after.serving.items.catalogue_read()
    after.serving.swap(before.learner.freeze().build(after.now_ms)[0])
    for slate in after.ask(*(a_request(n, f"u{n}", n=20) for n in range(8))):
        assert shown(slate)
        assert not {f"i{n:03d}" for n in range(5)} & set(shown(slate))


def test_the_surface_of_a_request_alone_sets_its_context() -> None:
    assert context_code(None, "tv") == context_code(Context(surface="tv")) != 0
    assert context_code(Context(device="phone"), "tv") == context_code(Context(surface="tv", device="phone"))


def in_languages(rule: str) -> Service:
    service = Service(small(slates={"language": rule, "size": 20}, policies={"radio": {"language": "match"}}))
    names = [f"i{n:03d}" for n in range(40)]
    service.catalogue(*names[:10])
    service.catalogue(*names[10:20], languages=("de",))
    service.catalogue(*names[20:30], languages=("de", "en"))
    service.catalogue(*names[30:], languages=("pt",))
    service.live_through(a_log(300, items=40))
    return service


@pytest.mark.parametrize(
    ("language", "tens"),
    [("de-AT", {0, 1, 2}), ("en", {0, 2}), ("pt_BR", {0, 3}), ("sw", {0}), (None, {0, 1, 2, 3}), ("?", {0, 1, 2, 3})],
)
def test_where_languages_are_judged_who_says_one_is_shown_what_can_be_followed_in_it(
    language: str | None, tens: set[int]
) -> None:
    service, context = in_languages("match"), {"context": {"language": language}}
    assert groups(service, **context) == tens
    assert groups(in_languages("any"), **context) == {0, 1, 2, 3}
    (slate,) = service.ask(a_request(3, "u1", **context))
    assert slate.language == (language[:2] if language not in (None, "?") else None)


def test_a_surface_may_judge_languages_where_others_do_not() -> None:
    service, english = in_languages("any"), {"context": {"language": "en"}}
    slates = service.ask(
        a_request(1, "u1", n=20, surface="home", **english), a_request(2, "u1", n=20, surface="radio", **english)
    )
    home, radio = ({int(name[1:]) // 10 for name in shown(slate)} for slate in slates)
    assert (home, radio) == ({0, 1, 2, 3}, {0, 2})
    assert [slate.language for slate in slates] == [None, "en"]
    assert len({slate.policy for slate in slates}) == 2


def test_languages_in_one_batch_do_not_mix_whatever_proposes() -> None:
    """Newcomers get what is popular, others what is near, trending and new."""
    service, spoken = in_languages("match"), ("de", "en", "pt", "sw")
    events = [an_event(900 + n, f"x{n % 24}", "i000", context={"language": spoken[n % 4]}) for n in range(48)]
    slates = slates_of(service.respond(events))
    for slate in slates:
        allowed = {"de": {0, 1, 2}, "en": {0, 2}, "pt": {0, 3}, "sw": {0}}[slate.language or ""]
        assert {int(name[1:]) // 10 for name in shown(slate)} <= allowed
    assert {int(name[1:]) // 10 for slate in slates for name in shown(slate)} == {0, 1, 2, 3}
