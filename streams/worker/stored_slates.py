"""The stored slates of users as they may still be shown, for all who ask at a time in one round trip to Redis."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

from embeddings.eligibility import Viewer
from embeddings.errors import StoreRefused, StoreUnavailable
from embeddings.events import REFUSES
from embeddings.ids import item_ids
from embeddings.store import Profiles, UserStore
from streams.contract.records import decode_slate, encode
from streams.process.gathering import Together
from streams.process.threads import Thread
from streams.serving.live_model import Serving
from streams.serving.policies import Policies
from streams.serving.stages import epoch_ms
from streams.settings import Settings

_MOST = 256


class _Item(msgspec.Struct):
    item_id: str


class _Kept(msgspec.Struct):
    """What of a slate says whether it may still be shown."""

    items: tuple[_Item, ...] = ()
    expires_at: int = 0
    surface: str = ""
    country: str | None = None
    age_limit: int | None = None
    language: str | None = None

    @property
    def viewer(self) -> Viewer:
        """For whom it was made."""
        return Viewer(self.country or "", self.age_limit, self.surface, self.language or "")


_decode_kept = msgspec.json.Decoder(_Kept).decode


@dataclass(slots=True, kw_only=True)
class StoredSlates:
    """Reads in a thread of its own, from a store of its own; of one event loop."""

    reads: UserStore
    serving: Serving
    settings: Settings
    _policies: Policies = field(init=False)
    _thread: Thread = field(init=False, default_factory=lambda: Thread("stored-slates"))
    _together: Together[str, bytes | None] = field(init=False)

    def __post_init__(self) -> None:
        self._policies = Policies.of(self.settings)
        self._together = Together(answer=self._all, most=_MOST, passes=(StoreUnavailable, StoreRefused))

    async def latest(self, user_id: str) -> bytes | None:
        """The stored slate, without what may not be shown any more; None when it expired.

        What was seen since is left out too, or where the surface repeats, what was refused.

        Raises:
            Crowded: too many ask.
            StoreUnavailable, StoreRefused: there is no answer now.
        """
        return await self._together.ask(user_id)

    async def _all(self, user_ids: Sequence[str]) -> Sequence[bytes | None]:
        return await self._thread.run(self._read, user_ids)

    def _read(self, user_ids: Sequence[str]) -> Sequence[bytes | None]:
        values, profiles = self.reads.read_slates(user_ids)
        now_ms, out = epoch_ms(), list[bytes | None]([None] * len(values))
        read = [(user, value, _decode_kept(value)) for user, value in enumerate(values) if value is not None]
        alive = [one for one in read if one[2].expires_at > now_ms]
        if alive:
            user_P = np.array([user for user, _, _ in alive], np.int32)
            gone_PK = self._gone(user_P, [kept for _, _, kept in alive], profiles)
            changed = np.flatnonzero(np.any(gone_PK, axis=1)).tolist()
            for user, value, _ in alive:
                out[user] = value
            for p in changed:
                out[alive[p][0]] = _without(alive[p][1], gone_PK[p])
        return out

    def _gone(self, user_P: NDArray[np.int32], slates: Sequence[_Kept], profiles: Profiles) -> NDArray[np.bool_]:
        """Which places of P slates may not be shown any more. Shape (P, K), false beyond a slate's own places."""
        ids_P = [item_ids([item.item_id for item in slate.items]) for slate in slates]
        item_PK = np.zeros((len(slates), max(map(len, ids_P))), np.uint64)
        for p, ids in enumerate(ids_P):
            item_PK[p, : len(ids)] = ids
        states = profiles.states
        gone_PK = profiles.seen.hits(user_P, states.item_UH[user_P], item_PK)
        refused_UH = np.where(REFUSES[states.action_UH], states.item_UH, 0)
        viewers: dict[Viewer, list[int]] = defaultdict(list)
        for p, (user, slate) in enumerate(zip(user_P.tolist(), slates, strict=True)):
            viewers[slate.viewer].append(p)
            if self._policies.on(slate.surface).repeats:
                gone_PK[p] = np.isin(item_PK[p], refused_UH[user])
        with self.serving.items.lock:
            row_PK = self.serving.items.ids.rows(item_PK)
            for viewer, mine in viewers.items():
                barred_N, row_VK = self.serving.barred(viewer), row_PK[mine]
                unknown_VK = (row_VK < 0) | (row_VK >= len(barred_N))
                gone_PK[mine] |= unknown_VK | barred_N[np.minimum(row_VK, len(barred_N) - 1)]
        gone: NDArray[np.bool_] = gone_PK & (item_PK != 0)
        return gone


def _without(value: bytes, gone_K: NDArray[np.bool_]) -> bytes:
    slate = decode_slate(value)
    good = tuple(item for item, out in zip(slate.items, gone_K.tolist(), strict=False) if not out)
    return encode(msgspec.structs.replace(slate, items=good))
