"""What an event of an ad becomes: of nothing organic, and applied like every other."""

import json
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embeddings.events import AD_FORMS, CONSENT_ALL, CONSENT_STORE, OF_ADS, TOUCHES, Action, Fate, Source
from embeddings.ids import NO_ITEM, item_id
from embeddings.spend import slate_decision_id
from streams.contract.consent import Judge
from streams.contract.deadletters import Code
from streams.contract.decode import Decoded, decode
from streams.contract.parsing import Rules

NOW = 1_750_000_000_000
OF_AN_AD = ["impression", "viewable", "click", "first_quartile", "midpoint", "third_quartile", "complete", "conversion"]


class Raw(NamedTuple):
    offset: int
    value: bytes
    key: bytes | None = b"u1"
    headers: tuple[tuple[str, bytes], ...] = ()
    timestamp: int = NOW


def event(**fields: Any) -> dict[str, Any]:
    return {"user_id": "u1", "type": "impression", "event_time": NOW, "decision_id": "d1"} | fields


def decoded(*events: dict[str, Any], consent: int = CONSENT_ALL) -> Decoded:
    raw = [Raw(offset, json.dumps(fields).encode()) for offset, fields in enumerate(events)]
    return decode([(Source("events", 0), raw)], Rules(judge=Judge(consent)), NOW)


@pytest.mark.parametrize("type_", OF_AN_AD)
def test_an_event_that_names_a_decision_is_of_an_ad_and_needs_no_item(type_: str) -> None:
    batch = decoded(event(type=type_), event(type=type_, decision_id=None, item_id="m1")).batch
    assert batch.action_B.tolist() == [AD_FORMS[Action[type_]], Action[type_]]
    assert batch.item_B.tolist() == [NO_ITEM, item_id("m1")]
    assert batch.refused_B.tolist() == [Fate.applied] * 2
    assert OF_ADS[batch.action_B].tolist() == [True, False]


def test_its_item_is_not_told_of_for_the_ad_alone_is_what_it_is_of() -> None:
    found = decoded(event(type="complete", item_id="m1"), event(type="complete", item_id="m2", decision_id=""))
    assert found.batch.item_B.tolist() == [NO_ITEM, item_id("m2")]
    assert found.names == {item_id("m2"): "m2"}
    assert [e.item_id for e in found.events] == ["m1", "m2"]


@pytest.mark.parametrize("type_", ["play", "skip", "like", "rating", "ad_impression", "teleport"])
def test_what_is_nothing_that_an_ad_knows_is_of_an_unknown_type(type_: str) -> None:
    batch = decoded(event(type=type_, value=1, item_id="m1")).batch
    assert batch.refused_B.tolist() == [Fate.unknown_type]


def test_the_names_of_codes_are_no_types() -> None:
    assert decoded(event(type="ad_click", decision_id=None)).batch.refused_B.tolist() == [Fate.unknown_type]


def test_for_it_storing_is_allowed_where_the_profile_may_not_be_updated() -> None:
    for type_ in OF_AN_AD:
        assert decoded(event(type=type_), consent=CONSENT_STORE).batch.refused_B.tolist() == [Fate.applied]
        assert decoded(event(type=type_), consent=CONSENT_ALL - 1).batch.refused_B.tolist() == [Fate.unconsented]
        organic = event(type=type_, item_id="m1", decision_id=None)
        assert decoded(organic, consent=CONSENT_STORE).batch.refused_B.tolist() == [Fate.unconsented]


def test_it_may_be_wrong_like_any_other() -> None:
    late, odd = event(event_time=NOW + 2 * 86_400_000), event(item_id="undefined")
    assert [letter.code for letter in decoded(late).dead] == [Code.future]
    assert len(decoded(odd).dead) == len(decoded(odd | {"decision_id": None}).dead)


EVENTS = st.builds(
    event,
    type=st.sampled_from([*OF_AN_AD, "play", "rating", "skip"]),
    item_id=st.sampled_from(["a", "b", None]),
    value=st.sampled_from([1, 5, None]),
    decision_id=st.sampled_from(["d1", "", None]),
)


@given(st.lists(EVENTS, max_size=20))
def test_nothing_of_an_ad_says_anything_of_an_item(events: list[dict[str, Any]]) -> None:
    found = decoded(*events)
    batch = found.batch
    of_an_ad_B = np.array([bool(e.decision_id) for e in found.events], np.bool_)
    applied_B = batch.refused_B == Fate.applied
    assert (OF_ADS[batch.action_B] == (of_an_ad_B & applied_B)).all()
    assert not batch.item_B[OF_ADS[batch.action_B]].any()
    assert not (TOUCHES[batch.action_B] & of_an_ad_B & applied_B).any()


def test_each_type_happens_once_to_an_ad_but_conversions_are_told_apart_by_their_ids() -> None:
    twice = event(event_id="e1"), event(event_id="e2"), event(decision_id="d2", event_id="e1"), event(type="click")
    dedupe = decoded(*twice).batch.dedupe_B.tolist()
    assert (dedupe[0] == dedupe[1], len(set(dedupe)), min(dedupe) > 0) == (True, 3, True)
    bought = [event(type="conversion", event_id=name) for name in ("o1", "o2", "o1", None)]
    dedupe = decoded(*bought).batch.dedupe_B.tolist()
    assert (dedupe[0] == dedupe[2], dedupe[0] == dedupe[1], dedupe[3]) == (True, False, 0)


def test_an_event_of_an_ad_on_a_page_may_name_its_slate_and_place_and_has_to_say_that_it_is_an_ads() -> None:
    by_place = event(decision_id=None, slate_id="s1", slot=3)
    found = decoded(by_place | {"ad": True}, by_place | {"ad": 1, "type": "click"}, by_place, by_place | {"ad": False})
    named = slate_decision_id("s1", 3)
    assert [e.decision_id for e in found.events] == [named, named, None, None]
    assert OF_ADS[found.batch.action_B].tolist() == [True, True, False, False]
    dedupe = decoded(by_place | {"ad": True}, event(decision_id=named)).batch.dedupe_B.tolist()
    assert dedupe[0] == dedupe[1]


def test_the_decision_that_it_names_stands() -> None:
    (found,) = decoded(event(slate_id="s1", slot=3, ad=True)).events
    assert found.decision_id == "d1"


@pytest.mark.parametrize("where", [{}, {"slate_id": "s1"}, {"slot": 3}, {"slate_id": "", "slot": 3}])
def test_an_ad_that_nobody_can_tell_is_a_dead_letter(where: dict[str, Any]) -> None:
    found = decoded(event(decision_id=None, ad=True, **where), event())
    ((code, said),) = [(letter.code, letter.detail) for letter in found.dead]
    assert (code, len(found.batch)) == (Code.missing_field, 1)
    assert "slate_id" in said


@pytest.mark.parametrize("wrong", [7, True, ["order 7"], {"id": "7"}, "7" * 513])
def test_an_id_of_a_conversion_that_is_none_is_a_dead_letter(wrong: object) -> None:
    bought = event(type="conversion", conversion_id="7" * 512)
    found = decoded(event(type="conversion", conversion_id=wrong), bought, bought | {"conversion_id": None})
    ((code, said),) = [(letter.code, letter.detail) for letter in found.dead]
    assert (code, [e.conversion_id for e in found.events]) == (Code.malformed, ["7" * 512, None])
    assert "conversion_id" in said
