"""What `marquee bench ads` measures on a running worker: kill switch, age of `ad-stats`, what ads add to slates."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, cycle
from typing import Any

import msgspec
import numpy as np
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from numpy.typing import NDArray

from streams.contract.ad_records import AdDecision, AdStats
from streams.contract.records import encode
from streams.lab.ad_crowd import AdCrowd
from streams.lab.bench_rig import Say
from streams.lab.bench_traffic import Contender, Traffic
from streams.lab.synthetic import World
from streams.serving.stages import epoch_ms
from streams.settings import Settings

ITEMS, SLOTS = 20, 4
_TURN_S, _PROBE_EVERY_S, _AFTER_S = 2.0, 0.01, 1.2
_ads, _stats = msgspec.json.Decoder(AdDecision).decode, msgspec.json.Decoder(AdStats).decode


@dataclass(slots=True)
class AdStack:
    """A worker that sells, its topics, and who asks."""

    worker: Contender
    settings: Settings
    bootstrap: str
    world: World
    ads: AdCrowd
    producer: AIOKafkaProducer
    say: Say
    decided: list[AdDecision] = field(default_factory=list)
    covered: list[tuple[float, dict[str, int]]] = field(default_factory=list)
    """When a publication of `ad-stats` arrived, and what it covers."""
    _requests: Iterator[int] = field(default_factory=count)

    def topic(self, name: Any) -> str:
        """A topic's full name."""
        return self.settings.topics.name(name)

    async def watch(self) -> None:
        """Read `ads` and `ad-stats` until cancelled."""
        ads, stats = self.topic("ads"), self.topic("ad_stats")
        async with AIOKafkaConsumer(
            ads, stats, bootstrap_servers=self.bootstrap, fetch_max_wait_ms=10, max_partition_fetch_bytes=8 << 20
        ) as consumer:
            async for record in consumer:
                if record.topic == ads:
                    self.decided.append(_ads(record.value))
                elif not record.key:
                    self.covered.append((time.time(), _stats(record.value).offsets))

    def asked(self, *, slots: int, items: int, **more: Any) -> tuple[bytes, bytes]:
        """Key and value of somebody's request."""
        n = next(self._requests)
        user_id = self.world.user_ids[n * 7919 % self.world.users]
        value = self.ads.request(n, user_id, slots=slots, items=items, time_ms=epoch_ms())
        return user_id.encode(), encode(msgspec.json.decode(value) | more) if more else value

    async def ask(self, **more: Any) -> None:
        """Send one."""
        key, value = self.asked(**more)
        await self.producer.send(self.topic("requests"), value, key=key)

    def rows(self, slots: int) -> Iterator[tuple[bytes, bytes]]:
        """Requests for slates, with so many places for ads."""
        while True:
            yield self.asked(slots=slots, items=ITEMS)

    async def until(self, done: Callable[[], bool], doing: Callable[[], Awaitable[None]], timeout_s: float) -> None:
        """Do something again and again until something is so.

        Raises:
            TimeoutError: it never was.
        """
        deadline = time.monotonic() + timeout_s
        while not done():
            self.worker.child.expect_running()
            if time.monotonic() > deadline:
                raise TimeoutError(f"nothing after {timeout_s:.0f} s\n{self.worker.child.tail()}")
            await doing()
            await asyncio.sleep(_PROBE_EVERY_S)

    async def publish(self, campaigns: Sequence[dict[str, Any]]) -> None:
        """Publish campaigns and wait until ads are decided, and `ad-stats` published."""
        for campaign in campaigns:
            await self.producer.send(self.topic("campaigns"), encode(campaign), key=campaign["campaign_id"].encode())
        await self.producer.flush()
        ask = lambda: self.ask(slots=SLOTS, items=0)  # noqa: E731  # asked more than once
        await self.until(lambda: any(ad.filled for ad in self.decided), ask, 120)
        await self.until(lambda: bool(self.covered), ask, 60)

    async def kill_switch(self, trials: int) -> NDArray[np.float64]:
        """Seconds from publishing null to the last ad of that campaign decided, of each trial, asked all the time."""
        for trial in range(trials):
            await self.producer.send(
                self.topic("campaigns"), encode(_doomed(trial)), key=_doomed(trial)["campaign_id"].encode()
            )
        took_s = []
        for trial in range(trials):
            name = _doomed(trial)["campaign_id"]
            ask = lambda: self.ask(slots=1, items=0, keyvalues={"doomed": [name]})  # noqa: B023, E731  # this trial's
            served = lambda: any(ad.campaign_id == name for ad in self.decided)  # noqa: B023, E731
            self.decided.clear()
            await self.until(served, ask, 30)
            began_s = time.time()
            await self.producer.send(self.topic("campaigns"), None, key=name.encode())
            await self.until(lambda: time.time() > began_s + _AFTER_S, ask, 30)  # noqa: B023
            last_ms = max(ad.decided_ms for ad in self.decided if ad.campaign_id == name)
            took_s.append(max(last_ms / 1000 - began_s, 0.0))
        return np.array(took_s)

    async def stats_age(self, seconds: float, events_per_s: int) -> NDArray[np.float64]:
        """Seconds from an event's publishing to the arrival of the publication of `ad-stats` that counts it."""
        self.decided.clear()
        await self.until(
            lambda: sum(ad.filled for ad in self.decided) >= seconds * events_per_s,
            lambda: self.ask(slots=SLOTS, items=0),
            120,
        )
        shown = [ad for ad in self.decided if ad.filled][: int(seconds * events_per_s)]
        self.covered.clear()
        sent = []
        began = time.monotonic()
        for n, ad in enumerate(shown):
            await asyncio.sleep(max(0.0, began + n / events_per_s - time.monotonic()))
            event = {
                "user_id": ad.user_id,
                "type": "impression",
                "decision_id": ad.decision_id,
                "event_time": epoch_ms(),
            }
            sent.append(
                (time.time(), await self.producer.send(self.topic("events"), encode(event), key=ad.user_id.encode()))
            )
        placed = [(at_s, place.partition, place.offset) for at_s, ack in sent for place in [await ack]]
        await asyncio.sleep(5)
        events = self.topic("events")
        return np.array(
            [
                next((at for at, upto in self.covered if upto.get(f"{events}/{p}", -1) >= offset), np.inf) - at_s
                for at_s, p, offset in placed
            ]
        )

    async def beside_slates(self, traffic: Traffic, seconds: float, load_ps: int, backlog: int) -> dict[str, Any]:
        """Slates of `ITEMS` with and without places for ads, in turns: at a steady rate, and as backlogs."""
        found: dict[str, NDArray[np.float64]] = {"off": np.empty(0), "on": np.empty(0)}
        paces: dict[str, list[tuple[float, float, float]]] = {"off": [], "on": []}
        turns = max(2, round(seconds / _TURN_S))
        for name, _ in zip(cycle(found), range(2 * turns), strict=False):
            slots = SLOTS if name == "on" else 0
            took_s = await traffic.latencies(self.worker, self.rows(slots), load_ps, seconds / turns)
            found[name] = np.append(found[name], took_s)
        for name, _ in zip(cycle(paces), range(6), strict=False):
            rows = self.rows(SLOTS if name == "on" else 0)
            paces[name].append(await traffic.work_off(self.worker, iter([next(rows) for _ in range(backlog)])))
        out: dict[str, Any] = {"load_ps": load_ps}
        for name, took_s in found.items():
            out |= {f"{name}_p{q}_ms": round(1000 * float(np.percentile(took_s, q)), 2) for q in (50, 99)}
            out[f"{name}_slates_per_s"] = round(float(np.median([pace[0] for pace in paces[name]])))
            out[f"{name}_slates_per_cpu_s"] = round(float(np.median([pace[2] for pace in paces[name]])))
        return out


def _doomed(trial: int) -> dict[str, Any]:
    """A campaign that wins whatever asks for it, until it is stopped."""
    name = f"doomed-{trial}"
    creative = {"crid": "c", "approved": True, "format": "banner", "adomain": [f"{name}.example"], "cat": ["IAB3"]}
    line = {
        "id": "l",
        "bid_micros": 90_000_000,
        "delivery": "asap",
        "budget_micros": 10**12,
        "targeting": {"keyvalues": {"doomed": [name]}},
        "creatives": [creative],
    }
    return {"campaign_id": name, "advertiser": name, "line_items": [line]}
