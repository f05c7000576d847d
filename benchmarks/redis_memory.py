"""Redis memory per user, overhead counted (MEMORY USAGE): state, seen set, stored slate.

    python -m benchmarks.redis_memory [--url redis://…]

The yardstick is 640 bytes for the state at a full history and 64 components, of somebody who was shown nothing without
an answer and saw no ad. Without `--url` it starts Valkey itself.
Activity is ML-100K's: the median user rated 65 items, the busiest 737; what exceeds 50 is in the seen set. Past 1,024
that is a filter of one size.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import closing

import numpy as np
import redis

from deploy.embedded import Valkey
from embeddings.events import Source
from embeddings.exposures import LOG, Exposures
from embeddings.fatigue import MOST, Unanswered
from embeddings.redis_store import RedisUserStore
from embeddings.seen import EXACT
from embeddings.state_columns import HISTORY, RING, UserStates, no_states
from embeddings.store import PartitionMark, SlateUpdate

YARDSTICK_BYTES = 640
MEDIAN_ITEMS, MOST_ITEMS = 65, 737
SOURCE = Source("marquee.events.v1", 0)
USERS = 200


def full_states(users: int) -> UserStates:
    draw, states = np.random.default_rng(0), no_states(users)
    states.item_UH[:] = draw.integers(1, 2**40, (users, HISTORY))
    states.action_UH[:] = draw.integers(1, 14, (users, HISTORY))
    states.last_s_U[:] = states.time_UH[:, 0] = 1_700_000_000
    states.time_UH[:] = 1_700_000_000 - np.arange(HISTORY) * 3_600
    states.share_UH[:] = draw.integers(0, 256, (users, HISTORY))
    states.count_U[:] = HISTORY
    states.ring_UR[:] = draw.integers(1, 2**32, (users, RING))
    states.mark_source_U2[:], states.mark_offset_U2[:] = [0, 1], 10**9
    return states


def a_slate(size: int) -> bytes:
    item = {"item_id": "movie-123456", "score": 0.73125, "source": "factors", "reasons": ["because_you_watched"]}
    head = {"slate_id": "0" * 32, "trigger": "event", "model": "m-000123", "expires_at": 1_700_000_000_000}
    return json.dumps({**head, "items": [{**item, "position": n} for n in range(size)]}).encode()


def fill(
    store: RedisUserStore, user_ids: Sequence[str], evicted_each: int, shown_each: int = 0, ads_each: int = 0
) -> None:
    users = len(user_ids)
    loaded = store.load(user_ids, [SOURCE])
    items = np.random.default_rng(1).integers(1, 2**40, users * evicted_each, dtype=np.uint64)
    shown = Unanswered.nothing(users, shown_each)
    shown.item_UW[:] = np.arange(1, 1 + shown_each)
    ads = Exposures.nothing(users, ads_each)
    ads.seen_U[:], ads.key_UX4[:] = ads_each, 2
    store.flush(
        store.keep(
            user_ids,
            full_states(users),
            changed_U=np.ones(users, np.bool_),
            taste_UD=np.random.default_rng(2).normal(size=(users, 64)).astype(np.float32),
            taste_version=1,
            unanswered=shown,
            exposures=ads,
            seen=loaded.seen.add(np.repeat(np.arange(users, dtype=np.int32), evicted_each), items),
            slates=SlateUpdate(range(users), [a_slate(20)] * users, 3_600),
            marks={SOURCE: PartitionMark(0)},
        )
    )


def usage(client: redis.Redis, pattern: str) -> tuple[int, int, int]:
    """Median and greatest MEMORY USAGE of the keys, and the bytes of a value."""
    keys = client.keys(pattern)
    used = [client.memory_usage(key, samples=0) for key in keys]
    return int(np.median(used)), max(used), client.strlen(keys[0])


def measure(url: str) -> dict[str, tuple[int, int, int]]:
    cases = {"median": MEDIAN_ITEMS - HISTORY, "busiest": MOST_ITEMS - HISTORY, "filter": EXACT + 1}
    rows = {}
    with redis.Redis.from_url(url) as client:
        for name, evicted in cases.items():
            store = RedisUserStore(url, width=64, prefix=f"memory-{name}")
            store.claim([SOURCE])
            fill(store, [f"user-{n:012d}" for n in range(USERS)], evicted)
            store.close()
            rows[f"seen set, {name} ({evicted} ids)"] = usage(client, f"memory-{name}:*:s:*")
        rows["state, full history, d=64"] = usage(client, "memory-median:*:u:*")
        rows["stored slate of 20"] = usage(client, "memory-median:*:l:*")
        for shown in (8, MOST):
            with closing(RedisUserStore(url, width=64, prefix=f"memory-shown-{shown}")) as store:
                store.claim([SOURCE])
                fill(store, [f"user-{n:012d}" for n in range(USERS)], 0, shown)
            rows[f"the state, {shown} items shown"] = usage(client, f"memory-shown-{shown}:*:u:*")
        for ads in (1, 10, LOG):
            with closing(RedisUserStore(url, width=64, prefix=f"memory-ads-{ads}")) as store:
                store.claim([SOURCE])
                fill(store, [f"user-{n:012d}" for n in range(USERS)], 0, 0, ads)
            rows[f"the state, {ads} ads seen"] = usage(client, f"memory-ads-{ads}:*:u:*")
        for key in client.scan_iter("memory-*", count=1_000):
            client.delete(key)
        about = client.info("server")
        print(about.get("server_name", "redis"), about.get("valkey_version", about["redis_version"]))
    return dict(reversed(rows.items()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url")
    url = parser.parse_args().url
    if url is not None:
        rows = measure(url)
    else:
        with Valkey() as server:
            rows = measure(server.url)
    print(f"{'per user':34s} {'median':>8s} {'max':>8s} {'value':>8s}  bytes; yardstick of the state {YARDSTICK_BYTES}")
    for name, (median, most, value) in rows.items():
        print(f"{name:34s} {median:8d} {most:8d} {value:8d}")
    return 0 if rows["state, full history, d=64"][1] <= YARDSTICK_BYTES else 1


if __name__ == "__main__":
    sys.exit(main())
