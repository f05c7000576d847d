from typing import Any

import pytest

from embeddings.errors import StoreUnavailable
from embeddings.memory import MemoryUserStore
from embeddings.store import UserStore
from streams.contract.records import Slate, SlateItem, decode_slate, encode
from streams.serving.stages import epoch_ms
from streams.worker.pages import Pages
from streams.worker.worker import Worker
from tests.embeddings.saving import save_slates
from tests.streams.builders import EVENTS, Service, an_event
from tests.streams.controlled import AN_ITEM, a_controlled_worker, catalogue


@pytest.fixture
async def worker() -> Worker:
    return a_controlled_worker()


def pages_of(worker: Worker, reads: UserStore, *assigned: str) -> Pages:
    return Pages(
        settings=worker.settings,
        metrics=worker.metrics,
        serving=worker.serving,
        reads=reads,
        control=worker.control,
        assigned=lambda: assigned,
        holdup=lambda: None,
        misfit_topics=lambda: None,
        lags=dict,
        paused=lambda: None,
    )


def a_slate(*items: str, expires_ms: int, surface: str = "home", **viewer: Any) -> bytes:
    places = tuple(SlateItem(item_id=item, position=n) for n, item in enumerate(items))
    return encode(Slate(slate_id="s", user_id="ann", items=places, expires_at=expires_ms, surface=surface, **viewer))


def keep_slate(service: Service, value: bytes) -> None:
    loaded, width = service.users.load(["ann"], [EVENTS]), service.settings.learner.dimensions
    save_slates(service.users, loaded, {"ann": value}, 60, width=width)


async def test_the_stored_slate_is_served_without_what_was_seen_or_removed_since(worker: Worker) -> None:
    service = Service()
    pages = pages_of(worker, service.users)
    worker.serving.catalogue([], [])
    await catalogue(worker, a=AN_ITEM, b=AN_ITEM, c=AN_ITEM)
    service.deliver([an_event(0, "ann", "b")])
    keep_slate(service, a_slate("a", "b", "c", "nameless", expires_ms=epoch_ms() + 60_000))
    await catalogue(worker, c=None)
    served = await pages.latest_slate("ann")
    assert served is not None
    assert [item.item_id for item in decode_slate(served).items] == ["a"]
    assert await pages.latest_slate("bob") is None
    keep_slate(service, a_slate("a", expires_ms=epoch_ms() - 1))
    assert await pages.latest_slate("ann") is None


async def test_a_stored_slate_is_judged_again_for_whom_it_was_made(worker: Worker) -> None:
    service, limits = Service(), {"here": {"territories": ["DE"]}, "old": {"rating": "12"}, "tv": {"surfaces": ["tv"]}}
    pages = pages_of(worker, service.users)
    await catalogue(worker, any=AN_ITEM, **{name: encode(limit) for name, limit in limits.items()})
    told = {"home DE 12": ["any", "here", "old"], "tv FR 6": ["any", "tv"]}
    for viewer, wanted in told.items():
        surface, country, limit = viewer.split()
        made_for = {"surface": surface, "country": country, "age_limit": int(limit)}
        keep_slate(service, a_slate("any", "here", "old", "tv", expires_ms=epoch_ms() + 60_000, **made_for))
        served = await pages.latest_slate("ann")
        assert served is not None
        assert [item.item_id for item in decode_slate(served).items] == wanted


async def test_a_stored_slate_of_a_surface_that_repeats_keeps_what_was_seen_but_not_what_was_refused(
    worker: Worker,
) -> None:
    service = Service()
    await catalogue(worker, a=AN_ITEM, b=AN_ITEM, c=AN_ITEM)
    service.deliver([an_event(0, "ann", "a"), an_event(1, "ann", "b"), an_event(2, "ann", "c", "hide")])
    keep_slate(service, a_slate("a", "b", "c", expires_ms=epoch_ms() + 60_000, surface="news"))
    served = await pages_of(worker, service.users).latest_slate("ann")
    assert served is not None
    assert [item.item_id for item in decode_slate(served).items] == ["a", "b"]


async def test_a_stored_slate_is_judged_again_in_the_language_it_was_made_for(worker: Worker) -> None:
    service = Service()
    pages = pages_of(worker, service.users)
    worker.serving.catalogue([], [])
    german, english = b'{"languages":["de"]}', b'{"languages":["en"]}'
    await catalogue(worker, a=AN_ITEM, b=german, c=german)
    for language, left in (("de", ["a", "b"]), (None, ["a", "b", "c"])):
        await catalogue(worker, c=german)
        places = tuple(SlateItem(item_id=item, position=n) for n, item in enumerate("abc"))
        whole = Slate(slate_id="s", user_id="ann", items=places, language=language, expires_at=epoch_ms() + 60_000)
        keep_slate(service, encode(whole))
        await catalogue(worker, c=english)
        served = await pages.latest_slate("ann")
        assert served is not None
        assert [item.item_id for item in decode_slate(served).items] == left


async def test_the_pages_say_what_is_missing(worker: Worker) -> None:
    pages = pages_of(worker, MemoryUserStore())
    assert (
        pages.checks()["started"]["control"]()
        == "marquee.catalog.v1 is not read yet: the brokers have not named its partitions"
    )
    events, requests = map(worker.settings.topics.name, ("events", "requests"))
    assert pages._partitions() == f"no partition is assigned of {events}, {requests}"
    assert pages_of(worker, MemoryUserStore(), requests)._partitions() == f"no partition is assigned of {events}"
    assert pages_of(worker, MemoryUserStore(), events, requests)._partitions() is None
    assert pages._pinged == "the store was not asked yet"
    assert pages._ping() is None

    class Away(MemoryUserStore):
        def ping(self) -> None:
            raise StoreUnavailable("timeout")

    assert pages_of(worker, Away())._ping() == "timeout"
