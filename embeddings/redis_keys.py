"""Names of the keys that users' states lie under in Redis, made for a batch at a time."""

from collections.abc import Iterable, Sequence

import numpy as np

from embeddings.events import Source
from embeddings.ids import murmur2


class RedisKeys:
    """Key names, built for a batch at a time."""

    def __init__(self, prefix: str, buckets: int) -> None:
        """`prefix` begins every key; `buckets`, a power of two, are what users are spread over."""
        if buckets & (buckets - 1) or buckets < 1:
            raise ValueError(f"buckets is {buckets}, allowed are powers of two")
        self._buckets = buckets
        self._prefix = prefix
        self._heads = {
            kind: [f"{prefix}:{{b{bucket}}}:{kind}:".encode() for bucket in range(buckets)] for kind in ("u", "s", "l")
        }
        self.topics, self.ping = f"{prefix}:topics".encode(), f"{prefix}:ping".encode()

    def of(self, kind: str, user_ids: Sequence[str]) -> list[bytes]:
        """Keys of one kind (u state, s seen, l slate)."""
        names, buckets = self._placed(user_ids)
        return self._join(kind, names, buckets)

    def profiles(self, user_ids: Sequence[str]) -> tuple[list[bytes], list[bytes]]:
        """Keys of the states and of the seen sets."""
        names, buckets = self._placed(user_ids)
        return self._join("u", names, buckets), self._join("s", names, buckets)

    def fences(self, sources: Iterable[Source]) -> list[bytes]:
        """Who owns partitions."""
        return [f"{self._prefix}:fence:{topic}:{partition}".encode() for topic, partition in sources]

    def marks(self, sources: Iterable[Source]) -> list[bytes]:
        """How far partitions were stored."""
        return [f"{self._prefix}:mark:{topic}:{partition}".encode() for topic, partition in sources]

    def _placed(self, user_ids: Sequence[str]) -> tuple[list[bytes], list[int]]:
        names = [user_id.encode() for user_id in user_ids]
        return names, (murmur2(names) & np.uint32(self._buckets - 1)).tolist() if names else []

    def _join(self, kind: str, names: list[bytes], buckets: list[int]) -> list[bytes]:
        heads = self._heads[kind]
        return [heads[bucket] + name for bucket, name in zip(buckets, names, strict=True)]
