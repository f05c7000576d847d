"""Places that chance fills: how many, with what, told how, and that nothing else changes."""

from typing import Any

import numpy as np
import pytest

from streams.contract.messages import Part
from streams.contract.records import Slate, decode_event, encode
from streams.serving.policies import Policies
from streams.serving.shown_writer import observe_shown
from streams.settings import Settings
from tests.streams.builders import (
    REQUESTS,
    Service,
    a_log,
    a_request,
    an_event,
    shown,
    slates_of,
    small,
    told,
)

ITEMS = [f"i{n:03d}" for n in range(40)]
LOG = a_log(700, items=40)
SHARE = 0.3


def a_service(share: float | None = SHARE, **groups: dict[str, Any]) -> Service:
    """40 items in four categories, and a snapshot of what 300 events taught."""
    said = {} if share is None else {"exploration": share}
    service = Service(small(slates={"trace_rate": 1.0, "candidates": 40, **said}, **groups))
    for n, name in enumerate(ITEMS):
        service.catalogue(name, categories=(f"kind {n % 4}",))
    service.live_through(LOG[:300])
    return service


def taken() -> dict[str, set[str]]:
    """What everybody took while the service lived."""
    out: dict[str, set[str]] = {}
    for raw in LOG[:300]:
        out.setdefault((raw.key or b"").decode(), set()).add(decode_event(raw.value or b"").item_id or "")
    return out


def drawn(slates: list[Slate]) -> list[list[int]]:
    return [[item.position for item in slate.items if item.explored] for slate in slates]


def test_who_does_not_ask_for_it_gets_the_same_bytes_under_the_same_names() -> None:
    assert Policies.of(Settings()).on("home").label == "default-ded36cf6"
    unsaid, off = (a_service(share).respond(LOG[300:360]) for share in (None, 0.0))
    assert [slate.value for slate in unsaid.slates] == [slate.value for slate in off.slates]
    assert unsaid.told == off.told
    assert b"propensity" not in b"".join(slate.value for slate in off.slates)
    assert all((trace.exploration, trace.places, trace.propensities) == (None, (), ()) for trace in off.traces)
    assert all(b"exploration" not in encode(trace) for trace in off.traces)


def test_a_share_of_places_shows_what_was_ranked_below() -> None:
    """What chance left alone is the slate of who does not explore, place by place."""
    ranked = slates_of(a_service(0.0).respond(LOG[300:700]))
    answer = a_service().respond(LOG[300:700])
    explored, below = 0, 0
    for plain, slate, trace in zip(ranked, slates_of(answer), answer.traces, strict=True):
        assert len(shown(slate)) == len(set(shown(slate))) == len(plain.items)
        rest = len(trace.candidates) - len(plain.items)
        for before, item in zip(plain.items, slate.items, strict=True):
            cards = max(rest, len(plain.items))
            if item.explored:
                explored += 1
                assert item.item_id in trace.candidates[len(plain.items) :]
                assert item.propensity == pytest.approx(SHARE / cards)
            else:
                assert item.item_id == before.item_id
                assert (item.propensity or 1.0) == pytest.approx(1 - SHARE * rest / cards)
            below += rest / cards
        assert (trace.exploration, trace.places) == (SHARE, tuple(shown(slate)))
        assert trace.propensities == tuple(item.propensity or 1.0 for item in slate.items)
    assert explored / below == pytest.approx(SHARE, abs=0.03)
    assert below > 1_500


def test_nothing_that_may_not_be_shown_is_shown_by_chance() -> None:
    service = a_service(0.5)
    service.catalogue(*ITEMS[:5], hidden=True)
    service.catalogue(*ITEMS[5:10], territories=("FR",))
    service.catalogue(*ITEMS[10:15], age=16)
    service.serving.catalogue([], ITEMS[15:20])
    seen = taken()
    people = [f"u{n % 12}" for n in range(240)]
    context = {"country": "DE", "age_limit": 12}
    slates = service.ask(*[a_request(n, user, context=context, exclude=ITEMS[20:22]) for n, user in enumerate(people)])
    out = {item for slate in slates for item in shown(slate)}
    assert sum(map(len, drawn(slates))) > 100
    assert not out & set(ITEMS[:22])
    assert not any(seen[slate.user_id] & set(shown(slate)) for slate in slates)


def test_a_batch_that_comes_again_is_answered_with_the_same_slates() -> None:
    service = a_service()
    first, again = service.respond(LOG[300:360]), service.respond(LOG[300:360])
    assert [slate.value for slate in first.slates] == [slate.value for slate in again.slates]
    assert first.told == again.told
    assert sum(map(len, drawn(slates_of(first)))) > 20
    one_by_one = [slate for raw in LOG[300:360] for slate in slates_of(service.deliver([raw]))]
    assert drawn(one_by_one) == drawn(slates_of(first))
    assert [shown(slate) for slate in one_by_one] == [shown(slate) for slate in slates_of(first)]


def test_a_slate_of_its_own_and_a_seed_of_its_own_draw_anew() -> None:
    service = a_service()
    same = [a_request(n, "u1", event_time=1_749_999_000_000) for n in range(40)]
    draws = drawn(service.ask(*same))
    assert len({tuple(each) for each in draws}) > 10
    assert drawn(service.ask(*same)) == draws
    service.answerer.settings = service.settings.model_copy(update={"seed": 7})
    assert drawn(service.ask(*same)) != draws


def test_only_the_surfaces_that_are_explored_are() -> None:
    service = a_service(None, policies={"lab": {"exploration": 0.5}, "home": {"exploration": 0}})
    surfaces = ["lab", "home", "elsewhere", "continue_watching"]
    slates = service.ask(*[a_request(n, "u1", surface=surfaces[n % 4]) for n in range(80)])
    by_surface = {name: sum(map(len, drawn([s for s in slates if s.surface == name]))) for name in surfaces}
    assert by_surface["lab"] > 20
    assert sum(by_surface.values()) == by_surface["lab"]
    everywhere = Policies.of(small(slates={"exploration": 0.2}))
    assert (everywhere.on("anywhere").exploration, everywhere.on("continue_watching").exploration) == (0.2, 0)


def test_the_share_is_part_of_what_a_policy_is_called() -> None:
    labels = {Policies.of(small(slates={"exploration": share})).on("home").label for share in (0.0, 0.1, 0.2)}
    assert len(labels) == 3


def test_the_learner_is_told_the_propensities_of_events_and_requests() -> None:
    service = a_service()
    answer = service.respond(LOG[300:330])
    (observation,) = told(answer)
    said_LN = [[item.propensity or 1.0 for item in slate.items] for slate in slates_of(answer)]
    assert observation.shown_propensity_LN == pytest.approx(np.array(said_LN), rel=1e-3)
    asked = [a_request(n, f"u{n % 12}", n=3 + n % 3) for n in range(30)]
    written, _ = service.answerer.respond([Part(REQUESTS, asked, len(asked) - 1, -1)])
    (observation,) = observe_shown(written, 1.0)
    for propensity_N, slate in zip(observation.shown_propensity_LN, service.ask(*asked), strict=True):
        said_N = [item.propensity or 1.0 for item in slate.items]
        assert propensity_N.tolist() == pytest.approx(said_N + [0] * (5 - len(said_N)), rel=1e-3)


def test_what_is_said_of_what_chance_shows_is_true_of_it() -> None:
    """An item or a category that the person took, popular, trending, new, or that chance put it there; not taste."""
    service = a_service(0.5, retrieval={"trending": 5, "fresh": 0})
    service.catalogue(*[f"odd{n}" for n in range(400)], available_from_s=1)
    service.swap()
    took, codes = taken(), set()
    for slate in service.ask(*[a_request(n, f"u{n % 12}") for n in range(240)]):
        for item in slate.items:
            (reason,) = item.reasons
            if not item.explored:
                assert reason != "explored"
                continue
            codes.add(reason.partition(":")[0])
            assert reason != "taste"
            assert item.because is None or item.because in took[slate.user_id]
            if item.category:
                same = [name for name in took[slate.user_id] if f"kind {int(name[1:]) % 4}" == item.category]
                assert f"kind {int(item.item_id[1:]) % 4}" == item.category
                assert len(same) >= 2
            if reason == "explored":
                assert item.item_id.startswith("odd")
    assert "explored" in codes
    assert codes & {"similar_to_recent", "category"}


def test_who_asks_for_fewer_places_is_shown_what_stands_below_these_whoever_asks_beside_them() -> None:
    service = a_service(0.5)
    alone = [service.ask(a_request(n, "u1", n=2))[0] for n in range(20)]
    asked = [a_request(n, "u1", n=2) for n in range(20)] + [a_request(20, "u2", n=15)]
    beside = service.ask(*asked)[:20]
    assert [shown(slate) for slate in beside] == [shown(slate) for slate in alone]
    assert len({item for slate in alone for item in shown(slate)}) > 5


def test_what_was_shown_too_often_without_an_answer_is_not_brought_back_by_chance() -> None:
    service = a_service(0.5)
    worn = set(ITEMS[20:35])
    seen_by = [an_event(700 + n, "u1", item, "impression") for n, item in enumerate(sorted(worn) * 9)]
    service.deliver(seen_by)
    slates = service.ask(*[a_request(n, "u1", n=3) for n in range(60)])
    out = {item for slate in slates for item in shown(slate)}
    assert sum(map(len, drawn(slates))) > 30
    assert out
    assert not out & worn
