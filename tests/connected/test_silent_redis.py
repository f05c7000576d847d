"""Redis is connected and says nothing, as while it is frozen: an answer is possible all the same, and soon."""

import asyncio
import json
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

import pytest

from deploy.embedded import Valkey
from embeddings.errors import StoreUnavailable
from embeddings.patience import Patience
from embeddings.redis_connection import RedisLine, Watch
from streams.contract.messages import Outgoing
from streams.contract.records import Slate, decode_slate, encode
from streams.lab.local_stack import Stack
from streams.serving.stages import epoch_ms
from streams.transport.letters import read_to_end
from streams.transport.publishing import Publisher

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(240)]
TIMEOUT_S = 10.0
"""The worker's `redis.timeout_s`: longer than anybody waits here who has an answer without Redis."""


@contextmanager
def silent(server: Valkey) -> Iterator[None]:
    """It holds its connections, takes new ones and what they send, and says nothing."""
    assert server.child is not None
    server.child.send(signal.SIGSTOP)
    try:
        yield
    finally:
        server.child.send(signal.SIGCONT)


class Asked(Watch):
    """Counts exchanges that were begun."""

    count = 0

    def exchanged(self, seconds: float) -> None:
        self.count += 1


def test_a_silent_server_is_let_alone_and_then_used_again_and_what_it_says_late_answers_nothing() -> None:
    with Valkey() as server:
        watch, patience = Asked(), Patience(0.05)
        lines = [RedisLine(server.url, timeout_s=60.0, watch=watch, patience=patience) for _ in range(2)]
        with closing(lines[0]), closing(lines[1]):
            lines[0].exchange(("SET", "a", b"1"), ("SET", "b", b"2"))
            lines[1].exchange(("PING",))
            before = watch.count
            with silent(server):
                for line in (*lines, *lines):
                    with pytest.raises(StoreUnavailable):
                        line.exchange(("GET", "a"))
            assert watch.count == before + 1
            give_up = time.monotonic() + 10
            while True:
                try:
                    assert lines[0].exchange(("GET", "b")) == [b"2"]
                    break
                except StoreUnavailable:
                    assert time.monotonic() < give_up
                    time.sleep(0.01)


class Site:
    """A worker, and who asks it."""

    def __init__(self, stack: Stack) -> None:
        self.stack, self.name = stack, stack.settings.topics.name

    def ask(self, path: str, body: Any = None) -> tuple[int, Any]:
        data, headers = (None, {}) if body is None else (encode(body), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(
                urllib.request.Request(self.stack.url + path, data, headers), timeout=60
            ) as got:
                return got.status, json.loads(got.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def publish(self, topic: Any, bodies: Mapping[str, Any]) -> None:
        async def send() -> None:
            publisher = Publisher(self.stack.settings.kafka.client_options(), idempotent=False)
            await publisher.send_all([Outgoing(self.name(topic), key.encode(), encode(bodies[key])) for key in bodies])
            await publisher.stop()

        asyncio.run(send())

    def slate_of_request(self, request_id: str) -> Slate:
        """The slate that the requests lane published."""
        options, topic, give_up = self.stack.settings.kafka.client_options(), self.name("slates"), time.monotonic() + 60

        async def slates() -> list[Slate]:
            return [decode_slate(one.value) async for some in read_to_end(options, topic) for one in some]

        while time.monotonic() < give_up:
            for slate in asyncio.run(slates()):
                if slate.request_id == request_id:
                    return slate
            time.sleep(0.1)
        raise AssertionError(self.stack.children["worker"].tail(30))


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    overrides = {
        "MARQUEE_TOPICS__PARTITIONS": "1",
        "MARQUEE_REDIS__TIMEOUT_S": str(TIMEOUT_S),
        "MARQUEE_SLATES__DEADLINE_MS": "2000",
        "MARQUEE_ADS__SECRET": "0123456789abcdef",
        "OMP_NUM_THREADS": "1",
    }
    with Stack(overrides) as stack:
        stack.wait_until_ready()
        yield Site(stack)


ITEMS = {f"i{n}" for n in range(8)}
CREATIVE = {"crid": "1", "approved": True, "format": "banner", "adomain": ["acme.example"]}
LINE = {"id": "l", "bid_micros": 1_000_000, "budget_micros": 10**9, "delivery": "asap", "creatives": [CREATIVE]}
CAMPAIGN = {"campaign_id": "c", "advertiser": "acme", "line_items": [LINE]}
IMP = [{"id": "1", "banner": {"w": 300, "h": 250}}]


@pytest.mark.slow
def test_a_request_is_answered_while_redis_says_nothing_and_from_the_profile_once_it_does(site: Site) -> None:
    site.publish("catalog", {name: {"title": name} for name in ITEMS})
    site.publish("campaigns", {"c": CAMPAIGN})
    played = {"type": "play", "user_id": "ann", "item_id": "i1", "event_time": epoch_ms()}
    site.publish("events", {"ann": played})

    def asked(request_id: str) -> tuple[set[str], bool]:
        """The items of an answer, and whether it brings an ad."""
        status, slate = site.ask("/v1/slates", {"request_id": request_id, "user_id": "ann", "n": 20, "imp": IMP})
        assert (status, slate.get("degraded")) == (200, "popular"), (slate, site.stack.children["worker"].tail(30))
        return {item["item_id"] for item in slate.get("items", ())}, slate["ads"][0].get("filled", False)

    def until_whole(prefix: str) -> None:
        """All but what she played, for her profile was read."""
        give_up = time.monotonic() + 30
        for n in range(10**6):
            if asked(f"{prefix}{n}") == (ITEMS - {"i1"}, True):
                return
            assert time.monotonic() < give_up, site.stack.children["worker"].tail(30)
            time.sleep(0.2)

    until_whole("before")
    with silent(site.stack.valkey):
        for n in range(4):
            assert asked(f"silent{n}") == (ITEMS, False)
        assert site.ask("/v1/users/ann/slate")[0] == 503
        site.publish("requests", {"ann": {"request_id": "lane", "user_id": "ann", "imp": IMP}})
        slate = site.slate_of_request("lane")
        assert {item.item_id for item in slate.items} == ITEMS
        assert slate.published_ms - slate.received_ms < 1_000 * TIMEOUT_S
    until_whole("after")
    assert site.ask("/v1/users/ann/slate")[0] == 200
