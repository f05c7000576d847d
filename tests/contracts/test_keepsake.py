"""What one worker leaves another is there, last one stands, in memory and in Valkey."""

import uuid

import pytest

from deploy.embedded import Valkey
from deploy.processes import free_port
from embeddings.errors import StoreUnavailable
from embeddings.keepsake import Keepsake, MemoryKeepsake, RedisKeepsake


@pytest.fixture(params=["memory", "valkey"])
def kept(request: pytest.FixtureRequest) -> Keepsake:
    if request.param == "memory":
        return MemoryKeepsake()
    server: Valkey = request.getfixturevalue("valkey")
    return RedisKeepsake(server.url, "x", prefix=f"t{uuid.uuid4().hex[:10]}")


def test_what_was_kept_last_is_there(kept: Keepsake) -> None:
    assert kept.load() is None
    for value in (b"a", b"", bytes(range(256))):
        kept.keep(value)
        assert kept.load() == value


@pytest.mark.embedded
def test_another_worker_finds_it_and_another_name_does_not(valkey: Valkey) -> None:
    prefix = f"t{uuid.uuid4().hex[:10]}"
    RedisKeepsake(valkey.url, "x", prefix=prefix).keep(b"a")
    assert RedisKeepsake(valkey.url, "x", prefix=prefix).load() == b"a"
    assert RedisKeepsake(valkey.url, "y", prefix=prefix).load() is None


def test_a_redis_that_is_away_says_so() -> None:
    with pytest.raises(StoreUnavailable):
        RedisKeepsake(f"redis://127.0.0.1:{free_port()}/0", "x").load()
