"""Who has no history gets what is most popular, with consent or without."""

import numpy as np
import pytest

from embeddings.items import MID
from tests.streams.builders import DENIED, NOW_MS, Service, a_log, a_request, an_event, shown

LOG = a_log(300, items=40)


@pytest.fixture
def service() -> Service:
    service = Service()
    service.catalogue(*(f"i{n:03d}" for n in range(40)))
    service.live_through(LOG)
    return service


def most_popular(service: Service) -> set[str]:
    items = service.serving.items
    return {items.names[row] for row in items.popular(20, items.blocked(NOW_MS // 1000), MID).tolist()}


def test_candidates_of_a_newcomer_are_the_most_popular(service: Service) -> None:
    (slate,) = service.ask(a_request(0, "nobody", n=20))
    popular = [item for item in slate.items if "popular" in item.source]
    assert not any("vector" in item.source for item in slate.items)
    assert {item.item_id for item in popular} == most_popular(service) & set(shown(slate))
    assert len(popular) >= 10


def test_consent_does_not_make_a_newcomer_worse_off(service: Service) -> None:
    yes, no = service.ask(a_request(0, "nobody", n=20), a_request(1, "nobody", n=20, consent=DENIED))
    assert shown(yes) == shown(no)


def test_before_a_ranker_is_taught_the_slate_is_the_most_popular() -> None:
    service = Service()
    service.catalogue(*(f"i{n:03d}" for n in range(40)))
    for at in range(0, 300, 30):
        service.deliver(LOG[at : at + 30])
    (slate,) = service.ask(a_request(0, "nobody", n=10))
    items = service.serving.items
    taken_R = items.takes(items.popular(10, items.blocked(NOW_MS // 1000), MID))
    rows = np.array([items.names.index(name) for name in shown(slate)], np.int32)
    assert not slate.ranked
    np.testing.assert_allclose(items.takes(rows), taken_R)


def test_a_newcomer_gets_what_is_popular_on_such_a_device() -> None:
    """Hundreds of takes on phones, few on television: there it is what television takes."""
    service = Service()
    service.catalogue(*(f"i{n:03d}" for n in range(60)))
    log = []
    for n in range(600):
        tv = n % 3 == 0
        context = {"device": "tv" if tv else "phone"}
        log.append(an_event(n, f"u{n}", f"i{30 * tv + n // 3 % 30:03d}", context=context))
    service.live_through(log)
    on_tv, on_phone = (
        service.ask(a_request(n, "nobody", n=10, context={"device": device}))[0]
        for n, device in enumerate(("tv", "phone"))
    )
    assert len(service.serving.live.contexts.key_C) >= 3, "two devices and an hour or more"
    assert {place.item_id >= "i030" for place in on_tv.items if "popular" in place.source} == {True}
    assert {place.item_id >= "i030" for place in on_phone.items if "popular" in place.source} == {False}


@pytest.mark.parametrize("context", [None, {"device": "tv"}, {"surface": "phone"}])
def test_the_surface_that_a_request_names_says_what_is_popular(context: dict[str, str] | None) -> None:
    service = Service()
    service.catalogue(*(f"i{n:03d}" for n in range(60)))
    surfaces = [("tv", 30) if n % 3 == 0 else ("phone", 0) for n in range(600)]
    service.live_through(
        [
            an_event(n, f"u{n}", f"i{first + n // 3 % 30:03d}", context={"surface": surface})
            for n, (surface, first) in enumerate(surfaces)
        ]
    )
    (slate,) = service.ask(a_request(0, "nobody", n=10, surface="tv", context=context))
    assert {place.item_id >= "i030" for place in slate.items if "popular" in place.source} == {True}
