from collections.abc import Iterator

import pytest

from embeddings.redis_store import RedisUserStore
from tests.contracts.backends import SERVERS, Backend, in_memory, on_server


@pytest.fixture(params=SERVERS)
def backend(request: pytest.FixtureRequest, topic_prefix: str) -> Iterator[Backend]:
    if request.param == "memory":
        yield in_memory()
        return
    opened: list[RedisUserStore] = []
    yield on_server(request.getfixturevalue(request.param).url, topic_prefix, opened)
    for store in opened:
        store.close()
