import json
from typing import Any

import pytest

from embeddings.events import Source
from embeddings.ids import item_ids
from ranking.ads.predicates import And, In, Or
from streams.contract.campaign_records import CampaignFacts
from streams.contract.deadletters import Code
from streams.contract.messages import Outgoing
from streams.contract.records import Counter, encode
from streams.serving import rehearsal
from streams.serving.stages import epoch_ms
from streams.worker.worker import Worker
from tests.ranking.ads.houses import a_campaign, a_line
from tests.streams.builders import NOW_MS
from tests.streams.controlled import AN_ITEM, Read, a_controlled_worker, catalogue, handle

ITEMS = [f"i{n:03d}" for n in range(40)]


@pytest.fixture
async def worker() -> Worker:
    return a_controlled_worker()


def metric(worker: Worker, name: str, **labels: str) -> float | None:
    return worker.metrics.registry.get_sample_value(f"marquee_{name}", labels)


def dead(worker: Worker) -> list[tuple[str, bytes | None, bytes]]:
    """Topic, key and code of what was put aside."""
    letters: list[Outgoing] = worker.control_topics.letters.topics["catalog"].publisher.published  # type: ignore[attr-defined]
    return [(letter.topic, letter.key, dict(letter.headers)["marquee.code"]) for letter in letters]


async def test_catalogue_records_come_and_go(worker: Worker) -> None:
    await catalogue(worker, a=b'{"title":"A"}', b=AN_ITEM)
    assert worker.serving.live.index.size == 2
    assert metric(worker, "index_items") == 2
    await catalogue(worker, a=None)
    assert worker.serving.live.index.size == 1
    assert dead(worker) == []


async def test_removals_that_name_nothing_are_counted(worker: Worker) -> None:
    await catalogue(worker, a=AN_ITEM, b=AN_ITEM)
    await catalogue(worker, a=None, B=None, c=None)
    assert metric(worker, "catalogue_removals_total", result="removed") == 1
    assert metric(worker, "catalogue_removals_total", result="unknown") == 2


async def test_a_key_that_a_connector_wrapped_removes_nothing_and_is_told(worker: Worker) -> None:
    await catalogue(worker, m1=AN_ITEM, m2=AN_ITEM)
    keys = (b'"m1"', b'{"id":"m2"}', b"Struct{id=m2}", b"\0\0\0\0*m1")
    await handle(worker, "catalog", *(Read("marquee.catalog.v1", key, None, n) for n, key in enumerate(keys)))
    assert dead(worker) == [("marquee.catalog.v1.dlq", key, b"malformed") for key in keys]
    assert worker.serving.live.index.size == 2
    assert worker.serving.items.names == ["m1", "m2"]


async def test_an_item_goes_with_the_key_that_brought_it(worker: Worker) -> None:
    named = (b'{"item_id":"m1"}', None)
    for value in named:
        await handle(worker, "catalog", Read("marquee.catalog.v1", b"row-7", value))
    assert dead(worker) == []
    assert worker.serving.live.index.size == 0


async def test_an_item_whose_id_is_taken_is_put_aside_and_the_others_come_and_go(worker: Worker) -> None:
    await catalogue(worker, old=AN_ITEM)
    worker.serving.items.ensure(item_ids(["late", "foe"]), ["squatter-1", "squatter-2"])
    await catalogue(worker, foe=None, new=AN_ITEM, old=None, late=AN_ITEM, newer=AN_ITEM)
    assert dead(worker) == [("marquee.catalog.v1.dlq", b"late", b"id_collision")]
    items = worker.serving.items
    rows = items.ids.rows(item_ids(["new", "newer", "old", "late"]))
    assert items.blocked(NOW_MS // 1000)[rows].tolist() == [False, False, True, False]
    assert items.columns.catalogued_N[rows].tolist() == [True, True, True, False]
    assert metric(worker, "dead_letters_total", topic="catalog", code="id_collision") == 1


@pytest.mark.parametrize("topic", ["catalog", "campaigns", "counters", "models"])
async def test_garbage_on_a_control_topic_is_put_aside(worker: Worker, topic: Any) -> None:
    await handle(worker, topic, Read(f"marquee.{topic}.v1", b"k", b"{"))
    assert dead(worker) == [(f"marquee.{topic}.v1.dlq", b"k", b"malformed")]


async def test_counters_make_popularity(worker: Worker) -> None:
    await catalogue(worker, a=AN_ITEM, b=AN_ITEM)
    counter = Counter(item_id="b", popularity=(3.0, 3.0, 3.0), events=10)
    gone = Read("marquee.counters.v1", b"x", None)
    await handle(worker, "counters", Read("marquee.counters.v1", b"b", encode(counter)), gone)
    with worker.serving.items.lock:
        trending_T = worker.serving.current().offer.trending_T
    assert worker.serving.items.names[trending_T[0]] == "b"


async def test_a_null_takes_an_items_counts_away(worker: Worker) -> None:
    """The learner writes it once an item left the catalogue: one that comes again begins anew, as after a restart."""
    await catalogue(worker, a=AN_ITEM, b=AN_ITEM)
    told = Counter(item_id="b", popularity=(3.0, 3.0, 3.0, 3.0), likes=2.0, last_taken_s=NOW_MS // 1000, epoch=5)
    await handle(worker, "counters", Read("marquee.counters.v1", b"b", encode(told)))
    items = worker.serving.items
    row_1 = items.ids.rows(item_ids(["b"]))
    assert items.takes(row_1).tolist() == [3.0]
    await handle(worker, "counters", *(Read("marquee.counters.v1", key, None) for key in (b"b", b"nobody")))
    assert items.takes(row_1).tolist() == [0.0]
    assert not items.columns.reactions_N4[row_1].any()
    assert not items.columns.last_taken_s_N[row_1].any()
    assert items.all_takes() == pytest.approx(0.0, abs=1e-6)
    assert len(items) == 2


def a_campaign_record(**fields: Any) -> bytes:
    creative = {"crid": "cr", "adomain": ["acme.example"], "w": 300, "h": 250, "approved": True}
    line = {"id": "l", "bid_micros": 2_000_000, "creatives": [creative]} | fields
    return json.dumps({"advertiser": "acme", "currency": "USD", "line_items": [line]}).encode()


async def campaigns(worker: Worker, *records: tuple[str, bytes | None], first: int = 0) -> list[str]:
    """Handle them; the line items that compete then."""
    topic = "marquee.campaigns.v1"
    await handle(worker, "campaigns", *(Read(topic, k.encode(), v, n) for n, (k, v) in enumerate(records, first)))
    return sorted(line.key for line in worker.ads.exchange.market.lines if line is not None)


async def test_campaigns_compete_as_their_last_record_says(worker: Worker) -> None:
    assert await campaigns(worker, ("c", a_campaign_record()), ("d", a_campaign_record())) == ["c/l", "d/l"]
    assert await campaigns(worker, ("c", a_campaign_record(bid_micros=5_000_000)), first=7) == ["c/l", "d/l"]
    market = worker.ads.exchange.market
    assert dict(zip([line.key for line in market.lines if line], market.bid_micros_L.tolist(), strict=True)) == {
        "c/l": 5_000_000,
        "d/l": 2_000_000,
    }
    assert sorted(market.version_L.tolist()) == [1, 7]


async def test_a_null_is_a_kill_switch(worker: Worker) -> None:
    await campaigns(worker, ("c", a_campaign_record()), ("d", a_campaign_record()))
    assert await campaigns(worker, ("c", None), ("nobody", None)) == ["d/l"]
    assert dead(worker) == []


async def test_nothing_competes_before_decisions_were_rehearsed_once(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    sold = list[bool]()
    monkeypatch.setattr(rehearsal, "sell", lambda *_: sold.append(worker.ads.sells()))
    await campaigns(worker, ("nobody", None))
    await campaigns(worker, ("c", a_campaign_record()))
    await campaigns(worker, ("d", a_campaign_record()), first=7)
    assert sold == [False]


async def test_how_fast_a_campaign_is_stopped_is_measured_but_of_what_was_stopped_before_the_start(
    worker: Worker,
) -> None:
    value, topic = worker.metrics.registry.get_sample_value, "marquee.campaigns.v1"
    await campaigns(worker, ("c", a_campaign_record()), ("d", a_campaign_record()))
    assert value("marquee_ad_competing") == 2
    await handle(worker, "campaigns", Read(topic, b"c", None, 2))
    assert value("marquee_ad_stop_seconds_count") == 0, "that was long ago"
    await handle(worker, "campaigns", Read(topic, b"d", None, 3, timestamp=epoch_ms()))
    assert value("marquee_ad_stop_seconds_count") == 1
    assert value("marquee_ad_competing") == 0
    assert value("marquee_records_consumed_total", {"topic": "campaigns"}) == 4


async def test_a_campaign_that_cannot_be_served_leaves_its_previous_version(worker: Worker) -> None:
    await campaigns(worker, ("c", a_campaign_record()))
    asked = {"and": [{"or": [{"country": c}, {"os": c}]} for c in "abcdefghi"]}
    bad = a_campaign_record(bid_type="cpx"), a_campaign_record(targeting=asked)
    assert await campaigns(worker, *(("c", value) for value in bad), first=1) == ["c/l"]
    assert dead(worker) == [("marquee.campaigns.v1.dlq", b"c", b"invalid")] * 2
    assert worker.ads.exchange.market.version_L.tolist() == [0]


async def test_a_campaign_that_only_the_index_refuses_is_put_aside_alone(worker: Worker) -> None:
    too_much = Or(tuple(And((In.of("country", f"c{n}"), In.of("os", f"o{n}"))) for n in range(300)))
    line = a_line(campaign="c", targeting=too_much)
    topic = "marquee.campaigns.v1"
    facts = [
        CampaignFacts(campaign, Source(topic, 0), Read(topic, campaign.id.encode(), b"{}", n))
        for n, campaign in enumerate((a_campaign("c", line), a_campaign("d")))
    ]
    letters = worker.control_topics._sell(facts, [])
    assert [(letter.code, letter.offset) for letter in letters] == [(Code.invalid, 0)]
    assert [line.key for line in worker.ads.exchange.market.lines if line] == ["d/l"]


async def test_a_worker_has_not_caught_up_before_it_read_the_campaigns(worker: Worker) -> None:
    assert "marquee.campaigns.v1" in worker.control.handlers
