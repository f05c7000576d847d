import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from streams.contract.records import Slate, SlateItem, decode_slate, encode
from streams.serving.stages import epoch_ms
from streams.worker.stored_slates import StoredSlates
from streams.worker.worker import Worker
from tests.embeddings.saving import save_slates
from tests.streams.builders import EVENTS, Service, an_event
from tests.streams.controlled import AN_ITEM, a_controlled_worker, catalogue


@pytest.fixture
async def worker() -> Worker:
    return a_controlled_worker()


def slates_of(worker: Worker, service: Service) -> StoredSlates:
    return StoredSlates(reads=service.users, serving=worker.serving, settings=worker.settings)


def a_slate(*items: str, expires_ms: int, surface: str = "home", **viewer: Any) -> bytes:
    places = tuple(SlateItem(item_id=item, position=n) for n, item in enumerate(items))
    return encode(Slate(slate_id="s", user_id="ann", items=places, expires_at=expires_ms, surface=surface, **viewer))


def keep_slate(service: Service, value: bytes) -> None:
    loaded, width = service.users.load(["ann"], [EVENTS]), service.settings.learner.dimensions
    save_slates(service.users, loaded, {"ann": value}, 60, width=width)


async def test_the_stored_slate_is_served_without_what_was_seen_or_removed_since(worker: Worker) -> None:
    service = Service()
    slates = slates_of(worker, service)
    worker.serving.catalogue([], [])
    await catalogue(worker, a=AN_ITEM, b=AN_ITEM, c=AN_ITEM)
    service.deliver([an_event(0, "ann", "b")])
    keep_slate(service, a_slate("a", "b", "c", "nameless", expires_ms=epoch_ms() + 60_000))
    await catalogue(worker, c=None)
    served = await slates.latest("ann")
    assert served is not None
    assert [item.item_id for item in decode_slate(served).items] == ["a"]
    assert await slates.latest("bob") is None
    keep_slate(service, a_slate("a", expires_ms=epoch_ms() - 1))
    assert await slates.latest("ann") is None


async def test_a_stored_slate_is_judged_again_for_whom_it_was_made(worker: Worker) -> None:
    service, limits = Service(), {"here": {"territories": ["DE"]}, "old": {"rating": "12"}, "tv": {"surfaces": ["tv"]}}
    slates = slates_of(worker, service)
    await catalogue(worker, any=AN_ITEM, **{name: encode(limit) for name, limit in limits.items()})
    told = {"home DE 12": ["any", "here", "old"], "tv FR 6": ["any", "tv"]}
    for viewer, wanted in told.items():
        surface, country, limit = viewer.split()
        made_for = {"surface": surface, "country": country, "age_limit": int(limit)}
        keep_slate(service, a_slate("any", "here", "old", "tv", expires_ms=epoch_ms() + 60_000, **made_for))
        served = await slates.latest("ann")
        assert served is not None
        assert [item.item_id for item in decode_slate(served).items] == wanted


async def test_a_stored_slate_of_a_surface_that_repeats_keeps_what_was_seen_but_not_what_was_refused(
    worker: Worker,
) -> None:
    service = Service()
    await catalogue(worker, a=AN_ITEM, b=AN_ITEM, c=AN_ITEM)
    service.deliver([an_event(0, "ann", "a"), an_event(1, "ann", "b"), an_event(2, "ann", "c", "hide")])
    keep_slate(service, a_slate("a", "b", "c", expires_ms=epoch_ms() + 60_000, surface="news"))
    served = await slates_of(worker, service).latest("ann")
    assert served is not None
    assert [item.item_id for item in decode_slate(served).items] == ["a", "b"]


async def test_a_stored_slate_is_judged_again_in_the_language_it_was_made_for(worker: Worker) -> None:
    service = Service()
    slates = slates_of(worker, service)
    worker.serving.catalogue([], [])
    german, english = b'{"languages":["de"]}', b'{"languages":["en"]}'
    await catalogue(worker, a=AN_ITEM, b=german, c=german)
    for language, left in (("de", ["a", "b"]), (None, ["a", "b", "c"])):
        await catalogue(worker, c=german)
        places = tuple(SlateItem(item_id=item, position=n) for n, item in enumerate("abc"))
        whole = Slate(slate_id="s", user_id="ann", items=places, language=language, expires_at=epoch_ms() + 60_000)
        keep_slate(service, encode(whole))
        await catalogue(worker, c=english)
        served = await slates.latest("ann")
        assert served is not None
        assert [item.item_id for item in decode_slate(served).items] == left


async def test_all_who_ask_at_a_time_get_their_own_in_one_round_trip(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, people = Service(), [f"u{n}" for n in range(20)]
    await catalogue(worker, **{f"i{n}": AN_ITEM for n in range(30)})
    draw, soon = np.random.default_rng(5), epoch_ms() + 60_000
    expected: dict[str, list[str] | None] = {}
    for n, user in enumerate(people):
        names = [f"i{k}" for k in draw.permutation(30)[: draw.integers(0, 9)].tolist()]
        seen = names[:1] if n % 3 == 0 else []
        service.deliver([an_event(100 * n + k, user, name) for k, name in enumerate(seen or ["i99"])])
        loaded, width = service.users.load([user], [EVENTS]), service.settings.learner.dimensions
        value = a_slate(*names, expires_ms=soon if n % 4 else 1, country="DE" if n % 2 else None)
        save_slates(service.users, loaded, {user: value}, 60, width=width)
        expected[user] = [name for name in names if name not in seen] if n % 4 else None
    read, trips = service.users.read_slates, list[Sequence[str]]()

    def counted(user_ids: Sequence[str]) -> Any:
        trips.append(user_ids)
        return read(user_ids)

    monkeypatch.setattr(service.users, "read_slates", counted)
    slates = slates_of(worker, service)
    asked = [*people, "nobody", *people]
    found = await asyncio.gather(*(slates.latest(user) for user in asked))
    for user, value in zip(asked, found, strict=True):
        names = [item.item_id for item in decode_slate(value).items] if value else None
        assert names == expected.get(user), user
    assert len(trips) <= 3
