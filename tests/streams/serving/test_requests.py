from collections.abc import Sequence

import pytest

from embeddings.errors import StoreUnavailable
from embeddings.patience import Patience
from embeddings.store import Profiles
from streams.contract.deadletters import Code
from streams.contract.messages import Part
from streams.contract.records import decode_event, encode
from tests.streams.builders import (
    DENIED,
    NOW_MS,
    REQUESTS,
    Raw,
    Service,
    a_log,
    a_request,
    an_event,
    shown,
    slates_of,
    small,
)

ITEMS = [f"i{n:03d}" for n in range(40)]
LOG = a_log(300, items=40)


@pytest.fixture
def service() -> Service:
    """300 events of twelve people are stored and learned."""
    service = Service()
    service.catalogue(*ITEMS)
    service.live_through(LOG)
    return service


def test_a_request_is_answered_from_the_profile_without_writing_it(service: Service) -> None:
    held = dict(service.shelf.held)
    (slate,) = service.ask(a_request(7, "u1", surface="player"))
    assert (slate.trigger, slate.request_id, slate.surface) == ("request", "r7", "player")
    assert (slate.topic, slate.partition, slate.offset) == (*REQUESTS, 7)
    assert slate.degraded is None
    assert any("neighbours" in item.source for item in slate.items)
    assert service.shelf.held == held


def test_an_answer_is_what_an_event_would_have_been_answered_with(service: Service) -> None:
    """The same profile at the same moment gives the same slate on either lane."""
    last = LOG[-1]
    user = (last.key or b"").decode()
    event_ms = NOW_MS - 1_000_000 + 1000 * last.offset
    (published,) = slates_of(service.respond([last]))
    (asked,) = service.ask(a_request(0, user, event_time=event_ms))
    assert shown(asked) == shown(published)


def test_it_has_as_many_places_as_were_asked_for(service: Service) -> None:
    slates = service.ask(a_request(0, "u1", n=3), a_request(1, "u1"), a_request(2, "u1", n=1000))
    assert [len(slate.items) for slate in slates] == [3, 5, 20]
    assert shown(slates[1])[:3] == shown(slates[0])


def test_an_answer_does_not_depend_on_the_requests_beside_it(service: Service) -> None:
    (alone,) = service.ask(a_request(0, "u1"))
    crowd = service.ask(a_request(0, "u1"), *(a_request(n, f"u{n}", n=20, exclude=ITEMS[:15]) for n in range(2, 9)))
    assert shown(crowd[0]) == shown(alone)
    assert [i.score for i in crowd[0].items] == pytest.approx([i.score for i in alone.items], abs=1e-5)


@pytest.mark.parametrize("timestamp", [NOW_MS // 1000, -1, 0, NOW_MS * 1000])
def test_a_record_timestamp_that_no_clock_shows_makes_no_request_late(service: Service, timestamp: int) -> None:
    (slate,) = service.ask(a_request(0, "u1")._replace(timestamp=timestamp))
    assert slate.degraded is None
    assert slate.event_ms == NOW_MS


def test_the_time_of_a_request_is_judged_as_that_of_an_event(service: Service) -> None:
    def codes(event_ms: int) -> list[Code]:
        asked = a_request(0, "u1", event_time=event_ms)
        return [letter.code for letter in service.answerer.respond([Part(REQUESTS, [asked], 0, -1)])[1]]

    assert codes(NOW_MS // 1000) == [Code.seconds]
    assert codes(NOW_MS + 90_000_000) == [Code.future]
    assert codes(NOW_MS + 1_000) == []


def test_a_null_in_a_request_reads_as_an_absent_field(service: Service) -> None:
    names = ("user_id", "n", "exclude", "imp", "context", "consent", "personalised", "surface", "deadline_ms")
    whole = Raw(0, encode({"request_id": "r", **dict.fromkeys(names)}), b"u1")
    (slate,) = service.ask(whole)
    assert (slate.request_id, slate.user_id, slate.degraded) == ("r", "u1", None)


def test_an_ad_slot_may_say_its_flags_as_true_and_false(service: Service) -> None:
    assert service.ask(a_request(0, "u1", imp=[{"id": "1", "secure": True, "instl": False, "rwdd": None}]))


@pytest.mark.parametrize("user", ['"u1"', '{"id":"u1"}', "Struct{id=u1}"])
def test_nobody_is_called_what_a_serialiser_made_of_an_id(service: Service, user: str) -> None:
    for asked in (a_request(0, user), Raw(0, b'{"request_id":"r"}', user.encode())):
        _, (letter,) = service.answerer.respond([Part(REQUESTS, [asked], 0, -1)])
        assert letter.code == Code.malformed


def test_excluded_items_are_left_out(service: Service) -> None:
    (first,) = service.ask(a_request(0, "u1"))
    (other,) = service.ask(a_request(0, "u1", exclude=shown(first)))
    assert set(shown(first)).isdisjoint(shown(other))
    assert len(other.items) == 5


def test_what_was_seen_is_left_out_unless_the_surface_repeats(service: Service) -> None:
    for n, item in enumerate(ITEMS[:30]):
        service.deliver([an_event(300 + n, "fan", item)])
    home, again = service.ask(a_request(0, "fan", n=20), a_request(1, "fan", n=20, surface="news"))
    assert set(shown(home)) == set(ITEMS[30:])
    assert set(shown(again)) & set(ITEMS[:30])


@pytest.mark.parametrize(
    "wish",
    [{"personalised": False}, {"consent": DENIED}, {"regs": DENIED}, {"regs": {"coppa": 1}, "consent": {"gdpr": 0}}],
)
def test_who_does_not_want_the_profile_used_is_offered_what_a_stranger_is(
    service: Service, wish: dict[str, object]
) -> None:
    mine, strangers = service.ask(a_request(0, "u1", n=20, **wish), a_request(1, "nobody", n=20, **wish))
    assert (mine.degraded, strangers.degraded) == ("contextual", "contextual")
    assert shown(mine) == shown(strangers)
    assert not any(name in i.source for i in mine.items for name in ("vector", "neighbours"))


def test_who_has_waited_too_long_gets_what_is_popular_and_not_seen(service: Service) -> None:
    service.now_ms += 100
    late, in_time, default = service.ask(
        a_request(0, "u1", deadline_ms=99), a_request(1, "u1", deadline_ms=100), a_request(2, "u1")
    )
    assert [late.degraded, in_time.degraded, default.degraded] == ["popular", None, None]
    assert not any(name in i.source for i in late.items for name in ("vector", "neighbours"))
    assert shown(in_time) == shown(default)
    taken = {decode_event(raw.value or b"").item_id for raw in LOG if raw.key == b"u1"}
    assert taken.isdisjoint(shown(late))


def test_nobody_unknown_is_called_degraded(service: Service) -> None:
    (slate,) = service.ask(a_request(0, "nobody"))
    assert (slate.degraded, len(slate.items)) == (None, 5)


def test_without_the_store_the_answer_is_what_is_popular(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(user_ids: Sequence[str]) -> Profiles:
        raise StoreUnavailable("timeout")

    (strangers,) = service.ask(a_request(0, "nobody"))
    monkeypatch.setattr(service.users, "read", away)
    (slate,) = service.ask(a_request(0, "u1"))
    assert slate.degraded == "popular"
    assert shown(slate) == shown(strangers)


def test_one_bad_request_does_not_cost_the_others_their_answer(service: Service) -> None:
    forbidden = a_request(3, "u1")._replace(headers=[("reply_to", b"somewhere")])
    batch = [a_request(0, "u1"), Raw(1, b"{"), Raw(2, b'{"user_id":"u1"}'), forbidden, Raw(4, None), a_request(5, "u2")]
    slates, dead = service.answerer.respond([Part(REQUESTS, batch, 5, -1)])
    assert [slate.trigger.offset for slate in slates] == [0, 5]
    found = {letter.offset: letter.code for letter in dead}
    assert found == {1: Code.malformed, 2: Code.missing_field, 3: Code.malformed, 4: Code.null_value}


def test_a_reply_may_go_to_a_topic_that_is_listed() -> None:
    service = Service(small(slates={"reply_topics": ("mine",)}))
    asked = a_request(0)._replace(headers=[("reply_to", b"mine")])
    ((slate,), dead) = service.answerer.respond([Part(REQUESTS, [asked], 0, -1)])
    assert slate.trigger.reply_to == "mine"
    assert not dead


def test_an_empty_batch_of_requests_is_answered_with_nothing(service: Service) -> None:
    assert service.answerer.respond([Part(REQUESTS, [Raw(0, b"")], 0, -1)])[0] == []


def test_the_same_request_read_again_gets_the_same_slate_id(service: Service) -> None:
    first, again = service.ask(a_request(0, "u1")), service.ask(a_request(0, "u1"))
    assert first == again


def test_a_request_whose_answer_nobody_could_find_is_refused(service: Service) -> None:
    nameless = Raw(3, b'{"request_id": "", "user_id": "u1"}')
    slates, (letter,) = service.answerer.respond([Part(REQUESTS, [nameless], 3, -1)])
    assert (slates, letter.code) == ([], Code.malformed)
    assert "request_id" in letter.detail


def test_who_asks_for_no_items_gets_a_slate_without_any(service: Service) -> None:
    crowd = service.ask(a_request(0, "u1", n=0), a_request(1, "u1", n=2), a_request(2, "u2", n=0))
    assert [len(slate.items) for slate in crowd] == [0, 2, 0]
    (alone,) = service.ask(a_request(0, "u1", n=0))
    assert alone.slate_id == crowd[0].slate_id
    assert not alone.items


@pytest.mark.parametrize(
    ("deadlines_ms", "waits_s"),
    [((900,), 0.9), ((900, 400, 5_000), 0.4), ((1, 900), 0.1), ((60_000,), 2.0)],
)
def test_a_store_that_says_nothing_is_waited_for_until_the_first_deadline_of_a_batch(
    service: Service, deadlines_ms: Sequence[int], waits_s: float
) -> None:
    service.answerer.patience = Patience(2.0)
    service.ask(*(a_request(n, "u1", deadline_ms=ms) for n, ms in enumerate(deadlines_ms)))
    assert service.answerer.patience.begin() == waits_s


def test_who_is_too_late_shortens_nobodys_wait(service: Service) -> None:
    service.answerer.patience = Patience(2.0)
    old = a_request(0, "u1")._replace(timestamp=NOW_MS - 60_000)
    service.ask(old, a_request(1, "u1", deadline_ms=900))
    assert service.answerer.patience.begin() == 0.9
    service.ask(old)
    assert service.answerer.patience.begin() == 0.1
