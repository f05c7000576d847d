"""A decision that was reserved and answered by two lives is told to the learner whatever killed the first."""

from typing import Any

import numpy as np

from streams.contract.observations import Observation
from streams.lab.ad_house import AdHouse
from streams.serving.observation_writer import slate_hash
from tests.streams.serving.test_ads import a_campaign, a_house, a_request


def told(house: AdHouse) -> list[Observation]:
    ads = house.workers[0].answerer.ads
    assert ads is not None
    return ads.take_told()


def columns(o: Observation) -> dict[str, Any]:
    return {name: getattr(o, name).tolist() for name in Observation.__dataclass_fields__ if name.startswith("ad_")}


def test_a_decision_of_a_killed_life_is_told_by_the_one_that_answers() -> None:
    house = a_house(a_campaign("clicks", bid=800_000, bid_type="cpc"), a_campaign("film", bid=1_000))
    part = house.requests([a_request(slots=2), a_request("bob", imp={"tagid": "top"})], 0)
    first = house.answer(part)
    (before,) = told(house)
    house.kill(0)
    again = house.answer(part)
    (after,) = told(house)
    filled = [ad.record.decision_id for slate in again for ad in slate.ads if ad.record.filled]
    assert [ad.value for slate in again for ad in slate.ads] == [ad.value for slate in first for ad in slate.ads]
    assert after.ad_A.tolist() == [slate_hash(name) for name in filled] == before.ad_A.tolist()
    assert np.allclose(after.ad_p_AO, before.ad_p_AO, atol=1e-6)
    same, known = columns(after), columns(before)
    assert {name: same[name] for name in same if name != "ad_p_AO"} == {
        name: known[name] for name in known if name != "ad_p_AO"
    }


def test_a_decision_whose_campaign_was_stopped_teaches_nothing() -> None:
    house = a_house(a_campaign())
    part = house.requests([a_request()], 0)
    house.answer(part)
    house.publish(stop=["spring"])
    house.kill(0)
    (again,) = house.answer(part)
    assert again.ads[0].record.filled
    assert told(house) == []
