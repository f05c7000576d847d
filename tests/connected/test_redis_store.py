"""What only a real server can show: lost replies, lost connections, refusals, expiry and memory."""

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import redis

from deploy.embedded import Valkey
from embeddings.errors import Fenced, StoreUnavailable
from embeddings.events import Source
from embeddings.exposures import Exposures
from embeddings.fatigue import MOST, Unanswered
from embeddings.redis_store import RedisUserStore
from embeddings.state_columns import UserStates, no_states
from embeddings.store import Loaded, PartitionMark, SlateUpdate, StoreRewound
from tests.connected.relays import CutLine
from tests.embeddings import saving

EVENTS = Source("events", 0)
WIDTH = 64
pytestmark = pytest.mark.embedded


@pytest.fixture
def server() -> Iterator[Valkey]:
    with Valkey() as own:
        yield own


@pytest.fixture
def store(server: Valkey) -> Iterator[RedisUserStore]:
    own = RedisUserStore(server.url, width=WIDTH, timeout_s=30.0)
    own.claim([EVENTS])
    yield own
    own.close()


def full_states(users: int) -> UserStates:
    """States at their fullest: 50 items, two marks, eight ids."""
    draw, states = np.random.default_rng(0), no_states(users)
    states.item_UH[:] = draw.integers(1, 2**40, (users, 50))
    states.action_UH[:] = 2
    states.last_s_U[:] = 1_700_000_000
    states.time_UH[:] = 1_700_000_000 - np.arange(50)
    states.share_UH[:] = draw.integers(0, 256, (users, 50))
    states.count_U[:] = 50
    states.ring_UR[:] = draw.integers(1, 2**32, (users, 8))
    states.mark_source_U2[:], states.mark_offset_U2[:] = [0, 1], 2**40
    return states


def effect(user: str = "u", offset: int = 9) -> dict[str, Any]:
    return {
        "user_ids": [user],
        "states": full_states(1),
        "changed_U": np.ones(1, np.bool_),
        "taste_UD": np.ones((1, WIDTH), np.float32),
        "taste_version": 1,
        "unanswered": Unanswered.nothing(1),
        "exposures": Exposures.nothing(1),
        "slates": SlateUpdate([0], [b"slate"], 60),
        "marks": {EVENTS: PartitionMark(offset, (offset + 1, *[0] * 9))},
    }


def save(store: RedisUserStore, loaded: Loaded, user: str = "u", offset: int = 9) -> None:
    saving.save(store, **effect(user, offset))


def test_every_key_has_a_time_to_live(server: Valkey, store: RedisUserStore) -> None:
    save(store, store.load(["u"], [EVENTS]))
    with redis.Redis.from_url(server.url) as client:
        keys = client.keys("*")
        assert len(keys) == 5
        assert all(client.ttl(key) > 0 for key in keys)


def test_keys_of_one_user_share_a_hash_slot(server: Valkey, store: RedisUserStore) -> None:
    save(store, store.load(["u"], [EVENTS]))
    with redis.Redis.from_url(server.url) as client:
        assert len({key.split(b"}")[0] for key in client.keys("mq:{*")}) == 1


def test_a_state_at_its_fullest_takes_at_most_656_bytes_of_the_server(server: Valkey, store: RedisUserStore) -> None:
    user = "user-0123456789-0123456789-0123456789"
    save(store, store.load([user], [EVENTS]), user)
    with redis.Redis.from_url(server.url) as client:
        (key,) = client.keys("*:u:*")
        assert client.memory_usage(key, samples=0) <= 656


@pytest.mark.parametrize("items", [1, 8, MOST])
def test_what_was_shown_takes_nine_bytes_an_item_beside_the_state(
    server: Valkey, store: RedisUserStore, items: int
) -> None:
    shown = Unanswered(np.arange(1, items + 1, dtype=np.uint64)[None], np.full((1, items), 1_700_000_000))
    store.load(["u"], [EVENTS])
    saving.save(store, **effect() | {"unanswered": shown})
    assert store.read(["u"]).unanswered.held_U.tolist() == [items]
    with redis.Redis.from_url(server.url) as client:
        (key,) = client.keys("*:u:*")
        assert client.strlen(key) == 556 + 9 * items + 1
        assert client.memory_usage(key, samples=0) <= 656 + 9 * items + 16


def test_after_a_lost_reply_the_batch_comes_again_and_finds_itself_stored(server: Valkey) -> None:
    line = CutLine(server.port)
    store = RedisUserStore(line.url, width=WIDTH, timeout_s=30.0)
    store.claim([EVENTS])
    save(store, store.load(["u"], [EVENTS]), offset=4)
    loaded = store.load(["u"], [EVENTS])
    line.cut = b"EVALSHA"
    with pytest.raises(StoreUnavailable):
        save(store, loaded)
    assert store.load(["u"], [EVENTS]).floor_offset_S.tolist() == [9]
    store.close()
    line.close()


def test_after_a_lost_reply_what_was_kept_is_flushed_again(server: Valkey) -> None:
    line = CutLine(server.port)
    store = RedisUserStore(line.url, width=WIDTH, timeout_s=30.0)
    store.claim([EVENTS])
    for offset in (4, 9, 14):
        store.load(["u"], [EVENTS])
        number = store.keep(**effect(offset=offset))
        if offset == 9:
            line.cut = b"EVALSHA"
            with pytest.raises(StoreUnavailable):
                store.flush(number)
    store.flush(number)
    assert store.marks([EVENTS])[EVENTS].offset == 14
    store.close()
    line.close()


def test_a_connection_lost_since_the_load_does_not_keep_a_batch_from_being_flushed(
    server: Valkey, store: RedisUserStore
) -> None:
    store.load(["u"], [EVENTS])
    number = store.keep(**effect())
    with redis.Redis.from_url(server.url) as client:
        client.client_kill_filter(_type="normal", skipme=True)
    with pytest.raises(StoreUnavailable):
        store.flush(number)
    store.flush(number)
    assert store.marks([EVENTS])[EVENTS].offset == 9


def test_a_partition_that_went_to_another_worker_holds_up_no_flush_of_the_rest(
    server: Valkey, store: RedisUserStore
) -> None:
    other, rival = Source("events", 1), RedisUserStore(server.url, width=WIDTH)
    store.claim([EVENTS, other])
    store.load(["u"], [other])
    rival.claim([other])
    store.load(["u"], [EVENTS])
    store.flush(store.keep(**effect()))
    assert store.marks([EVENTS])[EVENTS].offset == 9
    rival.close()


def test_a_connection_lost_since_the_load_asks_for_the_batch_again(server: Valkey, store: RedisUserStore) -> None:
    loaded = store.load(["u"], [EVENTS])
    with redis.Redis.from_url(server.url) as client:
        client.client_kill_filter(_type="normal", skipme=True)
    with pytest.raises(StoreUnavailable):
        save(store, loaded)
    with pytest.raises(StoreUnavailable, match="load the batch again"):
        save(store, loaded)
    save(store, store.load(["u"], [EVENTS]))


def test_a_server_away_and_back_is_used_again(server: Valkey, store: RedisUserStore) -> None:
    server.kill()
    for call in (lambda: store.load(["u"], [EVENTS]), lambda: store.read(["u"]), lambda: store.latest_slate("u")):
        with pytest.raises(StoreUnavailable):
            call()
    server.start()
    store.claim([EVENTS])
    save(store, store.load(["u"], [EVENTS]))


def test_a_full_server_refuses_the_whole_batch(server: Valkey) -> None:
    store = RedisUserStore(server.url, width=WIDTH)
    store.claim([EVENTS])
    loaded = store.load(["u"], [EVENTS])
    with redis.Redis.from_url(server.url) as client:
        client.config_set("maxmemory", 1)
        with pytest.raises(StoreUnavailable, match="maxmemory"):
            save(store, loaded)
        client.config_set("maxmemory", 0)
        assert client.keys("*:u:*") == []
    assert store.marks([EVENTS]) == {EVENTS: PartitionMark()}
    save(store, store.load(["u"], [EVENTS]))
    store.close()


def test_a_large_batch_is_written_whole_and_every_key_expires(server: Valkey, store: RedisUserStore) -> None:
    """The script writes a thousand keys at a time."""
    slates = {f"u{n}": b"%d" % n for n in range(2_345)}
    saving.save_slates(store, store.load(list(slates), [EVENTS]), slates, 60, width=WIDTH)
    assert {user: store.latest_slate(user) for user in slates} == slates
    with redis.Redis.from_url(server.url) as client:
        assert all(0 < client.ttl(key) <= 60 for key in client.keys("*:l:*"))


def test_a_demoted_server_is_a_passing_trouble(server: Valkey) -> None:
    store = RedisUserStore(server.url, width=WIDTH)
    store.claim([EVENTS])
    loaded = store.load(["u"], [EVENTS])
    with redis.Redis.from_url(server.url) as client:
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(StoreUnavailable):
            save(store, loaded)
        store.read(["u"])
        with pytest.raises(StoreUnavailable):
            store.ping()
        client.execute_command("REPLICAOF", "NO", "ONE")
        store.ping()
    save(store, store.load(["u"], [EVENTS]))
    store.close()


def test_a_busy_server_is_a_passing_trouble(server: Valkey, store: RedisUserStore) -> None:
    with redis.Redis.from_url(server.url) as client, redis.Redis.from_url(server.url) as other:
        client.config_set("busy-reply-threshold", 1)
        loop = threading.Thread(target=_spin, args=(other,))
        loop.start()
        with pytest.raises(StoreUnavailable):
            _read_until_refused(store)
        client.execute_command("SCRIPT", "KILL")
        loop.join()
    store.read(["u"])


def _read_until_refused(store: RedisUserStore) -> None:
    while True:
        store.read(["u"])


def _spin(client: redis.Redis) -> None:
    with pytest.raises(redis.ResponseError):
        client.eval("while true do end", 0)


def test_a_script_flushed_from_the_server_is_sent_again(server: Valkey) -> None:
    store = RedisUserStore(server.url, width=WIDTH)
    store.claim([EVENTS])
    for offset in (3, 9):
        save(store, store.load(["u"], [EVENTS]), offset=offset)
        with redis.Redis.from_url(server.url) as client:
            client.script_flush()
    assert store.marks([EVENTS])[EVENTS].offset == 9
    store.close()


def test_a_topic_made_anew_starts_over_and_people_keep_what_they_did(store: RedisUserStore) -> None:
    store.claim([EVENTS, Source("others", 0), Source("events", 900)])
    before = store.load(["u"], [EVENTS])
    save(store, before)
    assert store.start_over("others") == 0
    assert store.marks([EVENTS])[EVENTS].offset == 9
    assert store.start_over("events") == 1
    with pytest.raises(Fenced):
        store.load(["u"], [EVENTS])
    assert store.claim([EVENTS]) == {EVENTS: PartitionMark()}
    after = store.load(["u"], [EVENTS])
    assert after.states.events_U.tolist() == full_states(1).events_U.tolist()
    assert after.source_code_S.tolist() != before.source_code_S.tolist(), "users' marks of the old log mean nothing"
    assert store.start_over("events") == 0


def test_a_topic_is_made_anew_so_often_and_no_more(store: RedisUserStore) -> None:
    for _ in range(14):
        store.claim([EVENTS])
        save(store, store.load(["u"], [EVENTS]))
        assert store.start_over("events") == 1
    store.claim([EVENTS])
    save(store, store.load(["u"], [EVENTS]))
    with pytest.raises(ValueError, match="at most 15 topics"):
        store.start_over("events")
    assert store.marks([EVENTS])[EVENTS].offset == 9


def test_a_loss_is_seen_without_a_batch(server: Valkey, store: RedisUserStore) -> None:
    store.verify([])
    save(store, store.load(["u"], [EVENTS]))
    store.verify([EVENTS])
    with pytest.raises(Fenced):
        store.verify([Source("events", 1)])
    with redis.Redis.from_url(server.url) as client:
        client.set("mq:mark:events:0", PartitionMark(8).to_bytes())
        with pytest.raises(StoreRewound):
            store.verify([EVENTS])
        client.flushall()
        with pytest.raises(StoreRewound):
            store.verify([EVENTS])
