"""The made-up house of the benchmarks: whatever its size, it can be sold, and some of it to everybody who asks."""

from streams.contract.records import decode_request
from streams.lab.ad_crowd import AdCrowd
from streams.lab.ad_house import AdHouse
from tests.streams.builders import NOW_MS, small


def test_every_line_item_is_taken_and_requests_find_some() -> None:
    world, house = AdCrowd(lines=95), AdHouse(settings=small(), now_ms=NOW_MS)
    assert house.publish(*world.campaigns()) == []
    assert house.exchange.market.rows == 95
    for _ in range(12):
        house.now_ms += 1_000
        house.tick()
    asked = world.requests(["ann", "bob", "cid"], slots=4, items=0, time_ms=house.now_ms)
    decided = house.decisions(*map(decode_request, asked))
    assert [len(decisions) for decisions in decided] == [4, 4, 4]
    assert any(decision.filled for decisions in decided for decision in decisions)


def test_the_same_seed_gives_the_same_house() -> None:
    assert list(AdCrowd(lines=20).campaigns()) == list(AdCrowd(lines=20).campaigns())
    assert list(AdCrowd(lines=20).campaigns()) != list(AdCrowd(lines=20, seed=1).campaigns())
