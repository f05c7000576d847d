"""What the state stage costs without Kafka: load, fold, windows, seen, save; µs per user or event, one batch of 500.

    python -m benchmarks.user_store [--url redis://…]

Beside it, plain redis-py MGET and MSETEX (MSET on Redis 7) of the same payload. Histories are full, each user has seen
100 items beyond them. Client and server share the machine; the best of several rounds counts.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import redis

from benchmarks.redis_memory import full_states
from deploy.embedded import Valkey
from embeddings.events import CONSENT_ALL, Action, EventBatch, Source
from embeddings.fold import Folded, fold
from embeddings.redis_store import RedisUserStore
from embeddings.store import advance

USERS, SEEN, CANDIDATES = 500, 100, 300
SOURCE = Source("marquee.events.v1", 0)


def best_us(call: Callable[[], object], rounds: int = 8, calls: int = 8) -> float:
    """Microseconds per user of one call for all of them, the best of several rounds."""
    call()
    took = []
    for _ in range(rounds):
        begin = time.perf_counter()
        for _ in range(calls):
            call()
        took.append((time.perf_counter() - begin) / calls)
    return min(took) / USERS * 1e6


def a_batch(user_ids: tuple[str, ...], offset: int) -> EventBatch:
    draw = np.random.default_rng(offset)
    return EventBatch(
        user_ids=user_ids,
        sources=(SOURCE,),
        user_B=draw.permutation(USERS).astype(np.int32),
        item_B=draw.integers(1, 2**40, USERS, dtype=np.uint64),
        action_B=np.full(USERS, Action.play, np.uint8),
        value_B=np.zeros(USERS, np.float32),
        time_s_B=np.full(USERS, 1_700_000_001, np.int64),
        source_B=np.zeros(USERS, np.int32),
        offset_B=np.arange(offset, offset + USERS),
        dedupe_B=draw.integers(1, 2**32, USERS).astype(np.uint32),
        consent_B=np.full(USERS, CONSENT_ALL, np.uint8),
        refused_B=np.zeros(USERS, np.uint8),
    )


def measure(url: str) -> dict[str, float]:
    store = RedisUserStore(url, prefix="timing")
    user_ids = tuple(f"user-{n:012d}" for n in range(USERS))
    sources, taste_UD, every = (SOURCE,), np.ones((USERS, 64), np.float32), np.ones(USERS, np.bool_)
    claimed = store.claim(sources)
    first = store.load(user_ids, sources)
    items = np.random.default_rng(0).integers(1, 2**40, (USERS, SEEN), dtype=np.uint64)
    grown = first.seen.add(np.repeat(np.arange(USERS, dtype=np.int32), SEEN), items.ravel())
    filled = {"changed_U": every, "taste_UD": taste_UD, "taste_version": 1, "unanswered": first.unanswered}
    filled["exposures"] = first.exposures
    store.flush(store.keep(user_ids, full_states(USERS), **filled, seen=grown, marks=claimed))  # type: ignore[arg-type]
    loaded, batch = store.load(user_ids, sources), a_batch(user_ids, 2 * 10**9)

    def folded() -> Folded:
        return fold(loaded.states, batch, lateness_s=600, source_code_S=loaded.source_code_S)

    life = folded()
    marks = advance(loaded.marks, sources, batch.source_B, batch.offset_B, life.fate_B)
    windows = life.histories(life.before_B)
    user_P = life.users_of(life.before_B)
    candidates = np.random.default_rng(1).integers(1, 2**40, (USERS, CANDIDATES), dtype=np.uint64)
    more = loaded.seen.add(life.evicted.user_E, life.evicted.item_E)

    def load_and_save(with_seen: bool) -> None:
        store.load(user_ids, sources)
        seen = more if with_seen else None
        store.flush(store.keep(user_ids, life.states, **filled, seen=seen, marks=marks))  # type: ignore[arg-type]

    load = best_us(lambda: store.load(user_ids, sources))
    rows = {
        "load: states and seen sets": load,
        "fold": best_us(folded),
        "windows before every event": best_us(lambda: life.histories(life.before_B)),
        f"seen: {CANDIDATES} candidates": best_us(
            lambda: loaded.seen.hits(user_P, windows.item_PH, candidates, life.evicted, life.before_B)
        ),
        "seen: add one": best_us(lambda: loaded.seen.add(life.evicted.user_E, life.evicted.item_E)),
        "save: states": best_us(lambda: load_and_save(False)) - load,
        "save: states and seen sets": best_us(lambda: load_and_save(True)) - load,
        "read, for requests": best_us(lambda: store.read(user_ids)),
    }
    store.close()
    return rows | plain(url)


def plain(url: str) -> dict[str, float]:
    """The same payload by redis-py's own calls, without fence, marks or decoding."""
    with redis.Redis.from_url(url, protocol=2) as client:
        states, seen = client.keys("timing:*:u:*"), client.keys("timing:*:s:*")
        values = client.mget(states)
        pairs = [part for pair in zip(states, values, strict=True) for part in pair]
        newer = client.execute_command("COMMAND", "INFO", "MSETEX") not in ([None], {})
        write = ("MSETEX", len(states), *pairs, "EX", 9_999) if newer else ("MSET", *pairs)
        rows = {
            "plain MGET: states and seen sets": best_us(lambda: client.mget(states + seen)),
            "plain MGET: states": best_us(lambda: client.mget(states)),
            f"plain {write[0]}: states": best_us(lambda: client.execute_command(*write)),
        }
        client.delete(*client.keys("timing:*"))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url")
    chosen = parser.parse_args()
    if chosen.url is not None:
        rows = measure(chosen.url)
    else:
        with Valkey() as server:
            rows = measure(server.url)
    for name, us in rows.items():
        print(f"{name:36s} {us:6.2f} µs")


if __name__ == "__main__":
    main()
