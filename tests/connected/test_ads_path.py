"""Ads from topic to topic, as `marquee up` starts it: campaigns in, decisions, money and figures out, kills between."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer

from streams.contract.messages import Outgoing
from streams.contract.records import Slate, decode_ad, decode_slate, encode
from streams.lab.local_stack import Stack
from streams.settings import TopicName
from streams.transport.letters import read_to_end
from streams.transport.publishing import Publisher

pytestmark = [pytest.mark.embedded, pytest.mark.slow, pytest.mark.timeout(240)]

OVERRIDES = {
    "MARQUEE_TOPICS__PARTITIONS": "2",
    "MARQUEE_SLATES__DEADLINE_MS": "20000",
    "MARQUEE_KAFKA__SESSION_TIMEOUT_S": "2",
    "MARQUEE_ADS__SECRET": "a secret of this test",
    "MARQUEE_SLATES__SURFACE": "paper",
    "MARQUEE_ADS__SURFACES__PAPER__SHOW_RATE": "0.5",
    "MARQUEE_ADS__SURFACES__PAPER__FLOOR_MICROS": "1000000",
    "MARQUEE_ADS__SURFACES__PAPER__REVENUE_WEIGHT": "100000",
    "MARQUEE_ADS__SURFACES__PAPER__AD_LOAD_MAX": "0.05",
    "OMP_NUM_THREADS": "1",
}


RESERVING = Path(__file__).with_name("reserving_worker.py")


class Town:
    """A stack, and what is published to it and read from it."""

    def __init__(self, stack: Stack) -> None:
        self.stack, self.asked = stack, 0

    def topic(self, name: TopicName) -> str:
        return self.stack.settings.topics.name(name)

    async def publish(self, name: TopicName, key: str, value: Any) -> None:
        publisher = Publisher(self.stack.settings.kafka.client_options(), idempotent=False)
        try:
            written = None if value is None else encode(value)
            await publisher.send_all([Outgoing(self.topic(name), key.encode(), written)])
        finally:
            await publisher.stop()

    async def campaign(self, name: str, **line: Any) -> None:
        creative = {"crid": "cr", "approved": True, "format": "banner", "adomain": [f"{name}.example"]}
        item = {"id": "l", "bid_micros": 4_000_000, "delivery": "asap", "creatives": [creative]} | line
        await self.publish("campaigns", name, {"campaign_id": name, "advertiser": name, "line_items": [item]})

    async def ask(self, user: str, **more: Any) -> str:
        self.asked += 1
        request = {"request_id": f"r{self.asked}", "user_id": user, "n": 0, "imp": [{"id": "1", "banner": {}}]} | more
        await self.publish("requests", user, request)
        return f"r{self.asked}"

    async def tell(self, user: str, decision_id: str, kind: str = "impression", **more: Any) -> None:
        event = {"type": kind, "user_id": user, "event_time": time.time_ns() // 1_000_000}
        named = {"decision_id": decision_id} if decision_id else {}
        await self.publish("events", user, event | named | more)

    async def view(self, user: str, item: str) -> None:
        event = {"type": "view", "user_id": user, "item_id": item, "event_time": time.time_ns() // 1_000_000}
        await self.publish("events", user, event)

    async def pages(self, user: str, until: Callable[[list[Slate]], bool]) -> list[Slate]:
        """The slates that somebody's events led to, once they are what is waited for."""

        def mine(values: list[Any]) -> list[Slate]:
            return [each for each in map(decode_slate, values) if each.user_id == user and each.trigger == "event"]

        return mine(await self.heard("slates", lambda values: until(mine(values))))

    async def page(self, user: str, campaign_id: str) -> Slate:
        """A page of theirs that brings an ad of a campaign; campaigns and films take a second to be everywhere."""
        for n in range(100):
            await self.view(user, f"f{n % 20}")
            pages = await self.pages(user, lambda pages, n=n: len(pages) > n)  # type: ignore[misc]
            if pages[-1].ads and pages[-1].ads[0].campaign_id == campaign_id:
                return pages[-1]
            await asyncio.sleep(0.3)
        raise AssertionError(pages[-1])

    async def heard(self, name: TopicName, until: Callable[[list[Any]], bool], timeout_s: float = 40) -> list[Any]:
        """All values of a topic, once they are what is waited for."""
        values: list[Any] = []
        give_up = time.monotonic() + timeout_s
        consumer = AIOKafkaConsumer(
            self.topic(name), bootstrap_servers=self.stack.broker.bootstrap, auto_offset_reset="earliest"
        )
        async with consumer:
            while not until(values):
                assert time.monotonic() < give_up, (values[-3:], self.stack.children["worker"].tail(30))
                for records in (await consumer.getmany(timeout_ms=100)).values():
                    values.extend(record.value for record in records)
        return values

    async def decision(self, request_id: str) -> Any:
        def mine(values: list[Any]) -> list[Any]:
            return [ad for ad in map(decode_ad, values) if ad.request_id == request_id]

        return mine(await self.heard("ads", lambda values: bool(mine(values))))[0]

    async def filled(self, user: str, timeout_s: float = 40, **more: Any) -> Any:
        """Ask until an ad is shown: a ledger that is new opens after some seconds, and leases come then."""
        give_up = time.monotonic() + timeout_s
        while not (decision := await self.decision(await self.ask(user, **more))).filled:
            assert time.monotonic() < give_up, decision
            await asyncio.sleep(0.3)
        return decision

    async def figures(self, key: str, until: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """What `ad-stats` says of a line item, once it is what is waited for."""

        def latest(values: list[Any]) -> dict[str, Any]:
            told = [said for value in values if value and (said := json.loads(value)).get("key") == key]
            return told[-1] if told else {}

        return latest(await self.heard("ad_stats", lambda values: until(latest(values))))


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    folder: Path = tmp_path_factory.mktemp("stack")
    with Stack({**OVERRIDES, "MARQUEE_CACHE": str(folder)}, folder=folder) as stack:
        stack.wait_until_ready()
        yield Town(stack)


def test_an_ad_is_sold_shown_paid_for_and_told(town: Town) -> None:
    async def scenario() -> tuple[Any, dict[str, Any]]:
        await town.campaign("spring", budget_micros=50_000_000)
        decision = await town.filled("ann", imp=[{"id": "1", "banner": {}, "bidfloor": 2.5}])
        await town.tell("ann", decision.decision_id)
        await town.tell("ann", decision.decision_id, "click")
        told = await town.figures("spring/l", lambda said: bool(said.get("clicks") and said.get("served")))
        return decision, told

    decision, told = asyncio.run(scenario())
    assert (decision.campaign_id, decision.price_micros, decision.person != "") == ("spring", 2_500, True)
    assert (told["impressions"], told["clicks"], told["spent_micros"]) == (1, 1, 2_500)
    assert told["served"] >= 1


def test_a_cap_holds_over_a_worker_that_is_killed(town: Town) -> None:
    async def scenario() -> list[bool]:
        await town.campaign("once", bid_micros=9_000_000, caps=[{"count": 1, "time_unit": "day", "level": "line_item"}])
        give_up = time.monotonic() + 60
        while (decision := await town.filled("bob")).campaign_id != "once":
            assert time.monotonic() < give_up
        await town.tell("bob", decision.decision_id)
        await town.figures("once/l", lambda said: said.get("impressions") == 1)
        town.stack.children["worker"].kill()
        town.stack._spawn("worker", town.stack.http_port, str(RESERVING))
        await asyncio.to_thread(town.stack.wait_until_ready)
        later = [await town.filled("bob") for _ in range(3)]
        return [each.campaign_id == "once" for each in later]

    assert asyncio.run(scenario()) == [False, False, False]


def test_a_stopped_campaign_is_shown_to_nobody_more(town: Town) -> None:
    async def scenario() -> tuple[Any, float]:
        await town.campaign("brief", bid_micros=50_000_000)
        give_up = time.monotonic() + 60
        while (await town.filled("eve")).campaign_id != "brief":
            assert time.monotonic() < give_up
        await town.publish("campaigns", "brief", None)
        await asyncio.sleep(1)
        return await town.decision(await town.ask("eve")), 0.0

    decision, _ = asyncio.run(scenario())
    assert decision.campaign_id != "brief"


def test_a_page_brings_an_ad_unasked_which_is_billed_once_by_its_place_and_whose_cap_holds(town: Town) -> None:
    async def scenario() -> tuple[Slate, list[Slate], dict[str, Any]]:
        for n in range(40):
            await town.publish("catalog", f"f{n}", {"item_id": f"f{n}", "title": f"Film {n}"})
        await town.campaign(
            "paper", bid_micros=90_000_000, targeting={"surface": "paper"}, budget_micros=50_000_000,
            caps=[{"count": 1, "time_unit": "day", "level": "line_item"}],
        )  # fmt: skip
        page = await town.page("pia", "paper")
        for _ in range(2):
            await town.tell("pia", "", slate_id=page.slate_id, slot=page.ads[0].position, ad=True)
        said = await town.figures("paper/l", lambda said: said.get("impressions") == 1)
        before = len(await town.pages("pia", bool))
        for n in range(3):
            await town.view("pia", f"f{30 + n}")
            await town.pages("pia", lambda pages, n=n: len(pages) > before + n)  # type: ignore[misc]
        return page, (await town.pages("pia", lambda pages: len(pages) >= before + 3))[before:], said

    page, later, said = asyncio.run(scenario())
    (ad,) = page.ads
    assert (ad.position, ad.show_rate, len(page.items)) == (1, 0.5, 19)
    assert sorted([1, *(item.position for item in page.items)]) == list(range(20))
    assert (said["impressions"], said["spent_micros"]) == (1, ad.price_micros)
    assert not [each for each in later if [ad for ad in each.ads if ad.campaign_id == "paper"]]


def test_a_worker_that_is_killed_when_an_ad_is_reserved_and_not_published_leaves_it_to_the_next(town: Town) -> None:
    async def scenario() -> tuple[bytes, list[Any], Slate]:
        told = town.stack.folder / "reserved"
        await town.view("kim", "f1")
        give_up = time.monotonic() + 60
        while not told.exists():
            assert time.monotonic() < give_up
            await asyncio.sleep(0.1)
        town.stack._spawn("worker", town.stack.http_port)
        await asyncio.to_thread(town.stack.wait_until_ready)
        (page,) = await town.pages("kim", bool)
        ads = await town.heard("ads", lambda values: any(decode_ad(one).slate_id == page.slate_id for one in values))
        return told.read_bytes(), [one for one in ads if decode_ad(one).slate_id == page.slate_id], page

    reserved, published, page = asyncio.run(scenario())
    assert published == [reserved]
    assert [ad.decision_id for ad in page.ads] == [decode_ad(reserved).decision_id]


def test_what_cannot_be_served_is_put_aside_and_the_rest_goes_on(town: Town) -> None:
    async def scenario() -> list[Any]:
        await town.publish("campaigns", "odd", {"campaign_id": "odd", "line_items": [{"id": "l", "type": "gold"}]})
        topic = town.stack.settings.topics.dead_letters("campaigns")
        give_up = time.monotonic() + 60
        while not (found := [each async for each in read_to_end(town.stack.settings.kafka.client_options(), topic)]):
            assert time.monotonic() < give_up
            await asyncio.sleep(0.3)
        assert (await town.filled("zoe")).filled
        return list(found)

    assert len(asyncio.run(scenario())) == 1
