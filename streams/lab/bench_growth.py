"""`marquee bench growth`: what a worker costs as items and people grow: time, memory, and how long scoring waits.

The worker's own code runs in this process: catalogue records are read and let in, counters are counted, a snapshot is
swapped in, people's states lie in a Valkey of its own. Then one thread answers small batches of events while another
lets in a batch of counters and a batch of catalogue records, in turns and again and again, as the control topics bring
them. The lock of the item table says how long scoring waited for it and how long the other side held it. There is no
broker: fetching is no matter of how many items there are.
"""

import gc
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from deploy.embedded import Valkey
from embeddings.events import CONSENT_ALL, Action, Source
from embeddings.ids import item_ids
from embeddings.items import Items
from embeddings.redis_store import RedisUserStore
from embeddings.snapshots import Snapshot
from embeddings.state_columns import HISTORY, no_states
from streams.contract import records
from streams.contract.catalogue_records import read_catalogue
from streams.contract.consent import Judge
from streams.contract.counter_records import counts_of
from streams.contract.messages import Part
from streams.contract.parsing import Rules
from streams.lab.bench_rig import Say
from streams.lab.evaluation import LogRecord
from streams.lab.synthetic import taught
from streams.process.host import spare_what_stays
from streams.serving.live_model import LiveModel, Serving, index_builder
from streams.serving.pipeline import Recommender
from streams.serving.scoring import Scorer
from streams.settings import Settings
from streams.worker.stores import user_store

ITEMS, USERS = (10_000, 100_000, 1_000_000), (1_000, 100_000, 1_000_000)
QUICK = (10_000, 1_000), (100_000, 100_000), (1_000_000, 100_000)
"""What `--quick` measures: the corners that differ most."""
_EVENTS, _CATALOG = Source("growth-events", 0), Source("growth-catalog", 0)
_FETCH, _BATCH, _GENRES, _CHANGED = 2_000, 8, 200, 200
_WARM, _PACED = 40, 400
_EVENT_STAGES = "decode", "fold", "observe", "store"
_SLATE_STAGES = "retrieve", "rank", "compose"


class TimedLock:
    """A lock that may be taken again by who holds it, and takes down how long it was waited for and held."""

    def __init__(self) -> None:
        """Nobody holds it."""
        self._lock, self._depth, self._since, self._since_cpu = threading.RLock(), 0, 0.0, 0.0
        self.waited_s: dict[str, list[float]] = defaultdict(list)
        self.held_s: dict[str, list[float]] = defaultdict(list)
        self.worked_s: dict[str, list[float]] = defaultdict(list)
        """What of that was the processor's time: on a busy machine who holds a lock may be stopped meanwhile."""

    def __enter__(self) -> bool:
        begin = time.perf_counter()
        self._lock.acquire()
        self._depth += 1
        if self._depth == 1:
            self._since, self._since_cpu = time.perf_counter(), time.thread_time()
            self.waited_s[threading.current_thread().name].append(self._since - begin)
        return True

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if not self._depth:
            self.held_s[threading.current_thread().name].append(time.perf_counter() - self._since)
            self.worked_s[threading.current_thread().name].append(time.thread_time() - self._since_cpu)
        self._lock.release()

    def forget(self) -> None:
        """Begin anew."""
        for some in (self.waited_s, self.held_s, self.worked_s):
            some.clear()


@dataclass(slots=True)
class Site:
    """A worker's serving of N items around a store, and the records that tell of them."""

    size: int
    settings: Settings
    now_s: int = field(default_factory=lambda: int(time.time()))
    names: list[str] = field(init=False)
    serving: Serving = field(init=False)
    lock: TimedLock = field(init=False, default_factory=TimedLock)
    rules: Rules = field(init=False, default_factory=lambda: Rules(judge=Judge(CONSENT_ALL)))
    draw: np.random.Generator = field(init=False, default_factory=lambda: np.random.default_rng(0))
    offset: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.names = [f"item-{n:07d}" for n in range(self.size)]
        items = Items(half_lives=self.settings.half_lives.counters, catalogue_unread=True)
        items.lock = self.lock  # type: ignore[assignment]
        build = index_builder(self.settings)
        empty = LiveModel.empty(items, build, self.settings.learner.dimensions)
        self.serving = Serving(items, build, empty)

    def rows(self, count: int) -> NDArray[np.int64]:
        """That many of the items, popular ones more often."""
        return (self.size * self.draw.random(count) ** 3).astype(np.int64)

    def catalogue(self, chosen: Sequence[int], version: int = 0) -> list[LogRecord]:
        """Catalogue records of some items; every tenth is limited to a country, every tenth has a window."""
        out = []
        for n in chosen:
            item = records.Item(
                item_id=self.names[n],
                title=self.names[n],
                categories=(f"genre-{n % _GENRES}", f"shelf-{(n + version) % 12}"),
                year=1970 + n % 50,
                territories=("DE",) if n % 10 == 1 else None,
                available_from=(self.now_s + n % 7_200 - 3_600) * 1000 if n % 10 == 2 else None,
            )
            key = self.names[n].encode()
            out.append(LogRecord(n, (self.now_s - 30 * 86_400) * 1000, key, records.encode(item), ()))
        return out

    def admit(self, some: Sequence[LogRecord]) -> None:
        """Let catalogue records in, as a worker does."""
        facts, removed, dead = read_catalogue(_CATALOG, some, self.rules)
        assert not dead
        self.serving.catalogue([item.facts for item in facts], removed)

    def counters(self, chosen: Sequence[int], clock_s: int) -> list[records.Counter]:
        """Counters of some items as of a time."""
        return [
            records.Counter(
                item_id=self.names[n],
                popularity=(1e6 / (n + 10), 4e6 / (n + 10), 9e6 / (n + 10), 1e5 / (n + 10)),
                likes=1e5 / (n + 10),
                last_taken_s=clock_s - 60,
                first_seen_s=self.now_s - 86_400,
                clock_s=clock_s,
            )
            for n in chosen
        ]

    def count(self, counters: list[records.Counter]) -> None:
        """Count them, as a worker does."""
        counts = counts_of(counters, self.serving.items.half_lives)
        self.serving.count(counts, [counter.item_id for counter in counters])

    def snapshot(self, version: int = 1) -> Snapshot:
        """A made-up model: vectors and neighbours lie in genres, popular items have long vectors."""
        draw, s = np.random.default_rng(version), self.settings.learner
        genre_N = np.arange(self.size) % _GENRES
        length_N1 = (1 + np.arange(self.size, dtype=np.float32)[:, None]) ** -0.3
        centre_GD = draw.standard_normal((_GENRES, s.dimensions), np.float32)
        vectors_ND = (
            centre_GD[genre_N] + 0.5 * draw.standard_normal((self.size, s.dimensions), np.float32)
        ) * length_N1
        near_NK = draw.integers(0, max(self.size // _GENRES, 1), (self.size, s.neighbours), np.int32)
        near_NK = near_NK * np.int32(_GENRES) + genre_N[:, None].astype(np.int32)
        weight_K = (0.5 / np.arange(1, s.neighbours + 1)).astype(np.float32)
        return Snapshot(
            version=version,
            ids_N=item_ids(self.names),
            names=self.names,
            source_ND=vectors_ND,
            target_ND=vectors_ND,
            neighbours_NK=near_NK,
            weights_NK=np.broadcast_to(weight_K, near_NK.shape),
            counts_N=np.ones(self.size, np.float32),
            ranker=taught(0).tensors(),
            created_ms=self.now_s * 1000,
        )

    def events(self, users: int, count: int) -> list[LogRecord]:
        """What people do next."""
        out = []
        chosen = zip(self.draw.integers(0, users, count).tolist(), self.rows(count).tolist(), strict=True)
        for user, n in chosen:
            self.offset += 1
            now_ms = self.now_s * 1000 + self.offset
            event = records.Event(
                type="play",
                event_time=now_ms,
                user_id=f"user-{user:07d}",
                item_id=self.names[n],
                context=records.Context(country="DE" if user % 4 == 0 else "FR"),
            )
            out.append(LogRecord(self.offset, now_ms, f"user-{user:07d}".encode(), records.encode(event), ()))
        return out

    def settle(self, store: RedisUserStore, users: int) -> float:
        """Store people with full histories; returns bytes of the store's memory per user."""
        marks, ids_N = store.claim([_EVENTS]), item_ids(self.names)
        before = _store_bytes(store)
        for at in range(0, users, _FETCH):
            some = min(_FETCH, users - at)
            states = no_states(some)
            states.item_UH[:] = ids_N[self.rows(some * HISTORY)].reshape(some, HISTORY)
            states.action_UH[:], states.count_U[:] = Action.play, HISTORY
            states.time_UH[:] = self.now_s - 3_600 - 600 * np.arange(HISTORY)
            states.last_s_U[:], states.events_U[:], states.consent_U[:] = self.now_s - 3_600, HISTORY, CONSENT_ALL
            ids = [f"user-{u:07d}" for u in range(at, at + some)]
            loaded = store.load(ids, [_EVENTS])
            store.flush(
                store.keep(
                    ids,
                    states,
                    changed_U=np.ones(some, np.bool_),
                    taste_UD=np.zeros((some, self.settings.learner.dimensions), np.float32),
                    taste_version=0,
                    unanswered=loaded.unanswered,
                    exposures=loaded.exposures,
                    marks=marks,
                )
            )
        return (_store_bytes(store) - before) / users


def _store_bytes(store: RedisUserStore) -> int:
    return int(store.rehearse()["used_memory"])


@dataclass(slots=True)
class Stages:
    """How long each stage took the processor in all, seconds."""

    took_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time a stage."""
        begin = time.thread_time()
        yield
        self.took_s[name] += time.thread_time() - begin

    def us(self, names: Sequence[str], count: int) -> float:
        """Microseconds that some stages took, per unit."""
        return round(1e6 * sum(self.took_s[name] for name in names) / max(count, 1), 1)


def run_growth(
    sizes: Sequence[tuple[int, int]], *, seconds: float = 10.0, say: Say = lambda text: None
) -> dict[str, Any]:
    """Measure each of several (items, people); pauses for so many seconds each.

    Raises:
        StartFailed: the store did not start; its log's end is in the message.
    """
    rows: list[dict[str, Any]] = []
    for count in dict.fromkeys(items for items, _ in sizes):
        site, loaded = _grown(count, _settings(), say)
        spare_what_stays()  # as a worker does that has read its topics
        for users in (users for items, users in sizes if items == count):
            with Valkey() as valkey, closing(user_store(_settings(valkey.url))) as store:
                served = _served(site, store, users, seconds)
            rows.append({"items": count, "users": users, **served, **loaded})
            say(f"{count:,} items, {users:,} users: {rows[-1]}")
        del site
        gc.collect()
    return {"rows": rows, "worst_pause_p999_ms": max(row["pause_p999_ms"] for row in rows)}


def _settings(url: str = "redis://127.0.0.1") -> Settings:
    return Settings.model_validate(
        {
            "redis": {"url": url, "prefix": "growth", "timeout_s": 30.0},
            "consent": {"default": "grant"},
            "slates": {"trace_rate": 0.0, "max_age_s": 86_400},
        }
    )


def _grown(count: int, settings: Settings, say: Say) -> tuple[Site, dict[str, float]]:
    """A worker that has read the catalogue of so many items, their counters and a snapshot; what that took."""
    site, process = Site(count, settings), psutil.Process()
    before, load, counters = process.memory_info().rss, np.zeros(2), np.zeros(2)
    for at in range(0, count, _FETCH):
        some = site.catalogue(range(at, min(at + _FETCH, count)))
        load += _took(site.admit, some)
    load += _took(site.serving.items.catalogue_read)
    say(f"{count:,} items loaded in {load[0]:.1f} s, {load[1]:.1f} of the processor's")
    for at in range(0, count, _FETCH):
        counters += _took(site.count, site.counters(range(at, min(at + _FETCH, count)), site.now_s - 60))
    snapshot = site.snapshot()
    site.lock.forget()
    build = _took(site.serving.swap, snapshot)
    swap_s = max(held for some in site.lock.held_s.values() for held in some)
    del snapshot
    gc.collect()
    say(f"{count:,} items built in {build[0]:.1f} s: {site.serving.live.index.why}")
    return site, {
        "load_s": round(load[0], 2),
        "load_cpu_s": round(load[1], 2),
        "counters_s": round(counters[0], 2),
        "build_s": round(build[0], 2),
        "build_cpu_s": round(build[1], 2),
        "swap_ms": round(1000 * swap_s, 2),
        "bytes_per_item": round((process.memory_info().rss - before) / count),
    }


def _took(call: Callable[..., object], *arguments: object) -> NDArray[np.float64]:
    """Seconds that a call took, by the clock and of the processor's time. Shape (2,)."""
    begin, begin_cpu = time.perf_counter(), time.process_time()
    call(*arguments)
    return np.array([time.perf_counter() - begin, time.process_time() - begin_cpu])


def _served(site: Site, store: RedisUserStore, users: int, seconds: float) -> dict[str, float]:
    bytes_per_user, stages = site.settle(store, users), Stages()
    recommender = Recommender(
        users=store,
        scorer=Scorer(site.serving, site.settings),
        rules=site.rules,
        settings=site.settings,
        stage=stages,
    )

    def answer(count: int) -> tuple[int, int]:
        log = site.events(users, count)
        answer = recommender.respond([Part(_EVENTS, log, log[-1].offset, -1)])
        recommender.tell(answer)
        recommender.store(recommender.keep(answer))
        return len(log), len(answer.slates)

    for _ in range(_WARM):
        answer(_BATCH)
    stages.took_s.clear()
    events, slates = np.sum([answer(4 * _BATCH) for _ in range(_PACED // 4)], axis=0).tolist()
    paced = {"us_per_event": stages.us(_EVENT_STAGES, events), "us_per_slate": stages.us(_SLATE_STAGES, slates)}
    return {**paced, "bytes_per_user": round(bytes_per_user), **_pauses(site, lambda: answer(_BATCH), seconds)}


def _pauses(site: Site, answer: Callable[[], object], seconds: float) -> dict[str, float]:
    """How long answering waits for the item table while counters and catalogue records come, and how long they hold it.

    `pause_p999_ms` is the 99.9th percentile of the two that is greater.
    """
    stop, faults = threading.Event(), list[BaseException]()

    def control() -> None:
        turn = 0
        try:
            while not stop.is_set():
                turn += 1
                clock_s = site.now_s + turn
                site.count(site.counters(np.unique(site.rows(_FETCH)).tolist(), clock_s))
                site.admit(site.catalogue(np.unique(site.rows(_CHANGED)).tolist(), version=turn))
                stop.wait(0.1)
        except BaseException as error:
            faults.append(error)

    thread = threading.Thread(target=control, name="control")
    site.lock.forget()
    thread.start()
    deadline = time.monotonic() + seconds
    try:
        while time.monotonic() < deadline:
            answer()
    finally:
        stop.set()
        thread.join()
    if faults:
        raise faults[0]
    here = threading.current_thread().name
    waited_ms = 1000 * np.array(site.lock.waited_s[here])
    held_ms, worked_ms = (1000 * np.array(some["control"]) for some in (site.lock.held_s, site.lock.worked_s))
    waited, held = (float(np.percentile(taken_ms, 99.9)) for taken_ms in (waited_ms, held_ms))
    return {
        "pause_p999_ms": round(max(waited, held), 2),
        "wait_p999_ms": round(waited, 2),
        "held_p999_ms": round(held, 2),
        "held_cpu_p999_ms": round(float(np.percentile(worked_ms, 99.9)), 2),
        "pauses": len(waited_ms) + len(held_ms),
    }
