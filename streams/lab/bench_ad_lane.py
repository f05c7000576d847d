"""What `marquee bench ads` measures on one core: a requests lane that sells ads, beside a floor of library calls.

Requests go through the worker's own `Answerer` in batches, as records: decoded, asked, people and what is out for them
read, decided, reserved in the spend ledger, encoded. The floor does what no worker can do without, and only as calls of
libraries: msgspec decodes the same requests and encodes the same decisions and slates, Redis is asked for as many
states and decisions and given the decisions to keep, NumPy intersects what all line items ask for and takes the best.
They take turns, batch by batch, on the same Valkey.
"""

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from embeddings.codec import state_dtype
from embeddings.events import Source
from embeddings.redis_connection import RedisLine
from streams.configuration import load_settings
from streams.contract import records
from streams.contract.ad_records import AdDecision
from streams.contract.messages import Part
from streams.lab.ad_crowd import AdCrowd, with_heads
from streams.lab.ad_house import AdHouse
from streams.lab.evaluation import LogRecord
from streams.lab.synthetic import World
from streams.process.host import spare_what_stays
from streams.serving.slates import PublishedSlate
from streams.serving.stages import epoch_ms
from streams.settings import Settings
from streams.worker.spending import pause_s
from streams.worker.stores import spend_ledger, user_store

SLOTS = 4
RESULT = "lane.json"
_WARM_BATCHES, _TICKS = 6, 12
_ITEMS, _STATES = 4_000, 4_096


@dataclass(slots=True)
class Lane:
    """A house of one worker that sells L line items to people with histories, and the requests that it is asked."""

    settings: Settings
    lines: int
    people: int
    apart: bool = False
    house: AdHouse = field(init=False)
    world: World = field(init=False)
    ads: AdCrowd = field(init=False)
    offset: int = field(init=False, default=0)
    _due_s: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        settings = self.settings
        self.world = World(items=_ITEMS, users=self.people, width=settings.learner.dimensions)
        self.ads = AdCrowd(lines=self.lines)
        with closing(user_store(settings)) as store:
            self.world.settle(store, [Source("events", 0)])
        self.house = AdHouse(
            settings=settings,
            ledger=lambda: spend_ledger(settings),
            users=lambda: user_store(settings),
            now_ms=epoch_ms(),
        )
        self.house.serving.swap(with_heads(self.world.snapshot(), settings))
        if dead := self.house.publish(*self.ads.campaigns()):
            raise ValueError(dead[0].detail)
        for _ in range(_TICKS):
            self.house.now_ms += 1_000
            self.house.tick()
        self.house.workers[0].server.prepare()

    def batch(self, size: int) -> Part:
        """So many requests of people who come by chance, as they lie in their topic."""
        draw, now_ms = self.world.people("uniform", size), epoch_ms()
        asked = self.ads.requests(
            [self.world.user_ids[u] for u in draw.tolist()], slots=SLOTS, items=0, time_ms=now_ms, apart=self.apart
        )
        log = [LogRecord(self.offset + n, now_ms, b"", value, ()) for n, value in enumerate(asked)]
        self.offset += size
        return Part(Source("requests", 0), log, self.offset - 1, self.offset - size)

    def answer(self, part: Part) -> list[PublishedSlate]:
        """The worker's answers; now and then it looks at its budgets, as `Spending` does."""
        self.house.now_ms = max(self.house.now_ms, epoch_ms())
        if (began_s := time.monotonic()) >= self._due_s:
            self.house.tick()
            took_s, bears_s = time.monotonic() - began_s, self.house.workers[0].budgets.bears_s
            self._due_s = began_s + pause_s(took_s, self.settings.ads.tick_s, bears_s)
        answerer = self.house.workers[0].answerer
        slates, dead = answerer.respond([part])
        assert not dead, dead[0].detail
        assert answerer.ads is not None  # the house sells
        answerer.ads.take_told()
        return slates

    def see(self, slates: Sequence[PublishedSlate]) -> None:
        """The people see what they are shown: what is out for them is in their states then."""
        filled = [ad.record for slate in slates for ad in slate.ads if ad.record.filled]
        self.house.tell(
            *(
                {
                    "user_id": ad.user_id,
                    "type": "impression",
                    "decision_id": ad.decision_id,
                    "event_time": ad.decided_ms,
                }
                for ad in filled
            )
        )


@dataclass(slots=True)
class Floor:
    """The same work as library calls; `slates` are answers as they came, to have their sizes."""

    settings: Settings
    slates: Sequence[PublishedSlate]
    lines: int
    line: RedisLine = field(init=False)
    decisions: list[AdDecision] = field(init=False)
    pages: list[records.Slate] = field(init=False)
    bits_FW: NDArray[np.uint64] = field(init=False)
    bid_L: NDArray[np.float64] = field(init=False)
    _decode: msgspec.json.Decoder[records.Request] = field(init=False)
    _encode: msgspec.json.Encoder = field(init=False, default_factory=msgspec.json.Encoder)

    def __post_init__(self) -> None:
        self.line = RedisLine(self.settings.redis.url, timeout_s=10.0)
        self.decisions = [ad.record for slate in self.slates for ad in slate.ads]
        self.pages = [records.decode_slate(slate.value) for slate in self.slates]
        self._decode = msgspec.json.Decoder(records.Request)
        draw = np.random.default_rng(0)
        self.bits_FW = np.bitwise_and.reduce(draw.integers(0, 1 << 64, (2, 64, -(-self.lines // 64)), np.uint64))
        self.bid_L = draw.random(self.bits_FW.shape[1] * 64)
        state = bytes(state_dtype(self.settings.learner.dimensions).itemsize)
        self.line.exchange(*(("SET", b"floor:%d" % n, state, "EX", 3_600) for n in range(_STATES)))

    def answer(self, part: Part) -> list[bytes]:
        """As many answers as there are requests."""
        asked, many = [self._decode.decode(record.value) for record in part.records], len(part.records)
        at = part.records[0].offset % (_STATES - many)
        self.line.exchange(("MGET", *(b"floor:%d" % n for n in range(at, at + many))))
        ids = [b"floor:{spend}:%d" % (SLOTS * part.records[0].offset + n) for n in range(SLOTS * many)]
        self.line.exchange(("MGET", *ids))
        for row in range(many):
            found_L = self.bits_FW[row % 64] & self.bits_FW[row * 7 % 64]
            found = np.flatnonzero(np.unpackbits(found_L.view(np.uint8), bitorder="little"))
            np.argpartition(-self.bid_L[found], SLOTS)
        values = [self._encode.encode(self.decisions[n % len(self.decisions)]) for n in range(len(ids))]
        kept = [("SET", key, value, "EX", 3_600) for key, value in zip(ids, values, strict=True)]
        self.line.exchange(*kept)
        pages = [self._encode.encode(self.pages[n % len(self.pages)]) for n in range(len(asked))]
        return values + pages


def measured(
    settings: Settings, *, lines: int, people: int, size: int, seconds: float, apart: bool = False
) -> dict[str, Any]:
    """Requests and decisions per second of the wall clock and of CPU time, and the floor's, in turns for so long."""
    lane = Lane(settings, lines, people, apart)
    for _ in range(_WARM_BATCHES):
        slates = lane.answer(lane.batch(size))
        lane.see(slates)
    floor = Floor(settings, slates, lines)
    floor.answer(lane.batch(size))
    spare_what_stays()
    took: dict[str, list[tuple[float, float]]] = {"lane": [], "floor": []}
    decided = filled = 0
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        slates = _took(took["lane"], lane.answer, lane.batch(size))
        _took(took["floor"], floor.answer, lane.batch(size))
        lane.see(slates)
        decided += sum(len(slate.ads) for slate in slates)
        filled += sum(ad.record.filled for slate in slates for ad in slate.ads)
    wall, cpu = (size / np.median(took["lane"], axis=0)).tolist()
    floor_wall, floor_cpu = (size / np.median(took["floor"], axis=0)).tolist()
    batches = len(took["lane"])
    return {
        "requests_per_s": round(size * batches / sum(wall_s for wall_s, _ in took["lane"])),
        "requests_per_s_median": round(wall),
        "requests_per_cpu_s": round(cpu),
        "decisions_per_s": round(decided / sum(wall_s for wall_s, _ in took["lane"])),
        "floor_requests_per_s": round(floor_wall),
        "floor_requests_per_cpu_s": round(floor_cpu),
        "filled": round(filled / decided, 3),
        "line_items": lines,
        "slots": SLOTS,
        "batch": size,
        "decision_bytes": round(np.mean([len(ad.value) for slate in slates for ad in slate.ads])),
    }


def _took(into: list[tuple[float, float]], answer: Callable[[Part], Any], part: Part) -> Any:
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    answered = answer(part)
    into.append((time.perf_counter() - wall_s, time.process_time() - cpu_s))
    return answered


def main(folder: Path, lines: int, people: int, size: int, seconds: float) -> None:
    """Measure by the settings of the environment; the figures are in `RESULT` then."""
    figures = measured(load_settings(), lines=lines, people=people, size=size, seconds=seconds)
    (folder / f"{RESULT}.new").write_bytes(msgspec.json.encode(figures))
    (folder / f"{RESULT}.new").rename(folder / RESULT)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
