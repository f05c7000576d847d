from collections import Counter
from itertools import product

from embeddings.events import Source
from ranking.features import CONTEXTS
from streams.contract.records import Context, decode_event, decode_slate
from streams.serving.slates import slate_id_of
from streams.serving.traces import is_traced
from streams.serving.viewers import context_code
from tests.streams.builders import Service, a_log, a_request, an_event, slates_of, small

ITEMS = [f"i{n:03d}" for n in range(40)]


def test_a_slate_id_stands_for_input_surface_policy_and_nothing_else() -> None:
    places = list(product(["events", "requests"], range(3), range(3), ["home", "player"], [0, 7]))
    ids = [slate_id_of(Source(topic, partition), *more) for topic, partition, *more in places]
    assert len(set(ids)) == len(places)
    assert ids[0] == slate_id_of(Source("events", 0), 0, "home", 0) == "3b5340c37e8bbaab4bc8397b60101fc9"


def test_a_context_is_one_of_64_codes() -> None:
    assert context_code(None) == context_code(Context(country="DE")) == 0
    codes = {context_code(Context(surface=f"s{n}", device=device)) for n in range(100) for device in ("tv", None)}
    assert min(codes) >= 1
    assert max(codes) < CONTEXTS
    assert context_code(Context(surface="tv")) != context_code(Context(device="tv"))


def test_a_slate_says_why_each_item_is_there() -> None:
    """What it names the person took and neither skipped nor disliked since; a category is one they take."""
    service = Service()
    for n, name in enumerate(ITEMS):
        service.catalogue(name, categories=(f"kind {n % 4}",))
    log = a_log(300, items=40)
    service.live_through(log[:200])
    held: dict[bytes | None, dict[str, str]] = {}
    for raw in log[:200]:
        event = decode_event(raw.value or b"")
        held.setdefault(raw.key, {})[event.item_id or ""] = event.type
    named, kinds, codes = 0, 0, Counter[str]()
    for raw, slate in zip(log[200:], slates_of(service.deliver(log[200:])), strict=True):
        event = decode_event(raw.value or b"")
        mine = held[raw.key]
        mine[event.item_id or ""] = event.type
        for item in slate.items:
            (reason,) = item.reasons
            codes[reason.partition(":")[0]] += 1
            assert reason == f"similar_to_recent:{item.because}" if item.because else ":" not in reason
            assert (item.category is not None) == (reason == "category")
            assert item.because is None or mine[item.because] != "skip"
            took = Counter(f"kind {int(name[1:]) % 4}" for name, how in mine.items() if how != "skip")
            assert item.category is None or took[item.category] >= 2
            named += item.because is not None
            kinds += item.category is not None
    assert min(named, kinds) > 10
    assert codes["taste"] < 0.1 * codes.total()


def test_what_is_popular_in_the_country_of_the_viewer_is_said_to_be() -> None:
    service = Service()
    service.catalogue(*ITEMS)
    log = [
        an_event(n, f"u{n % 50}", ITEMS[n % 5 + 5 * (n % 2)], "play", context={"country": ("DE", "FR")[n % 2]})
        for n in range(300)
    ]
    service.live_through(log)
    there = {}
    for country in ("DE", "FR", "IT", None):
        context = {} if country is None else {"context": {"country": country}}
        (slate,) = service.ask(a_request(0, "newcomer", n=10, **context))
        there[country] = {item.item_id for item in slate.items if item.country}
        assert all(item.country in (None, country) for item in slate.items)
        assert all(item.reasons[0] in ("popular", "trending") for item in slate.items if item.country)
    assert there["DE"]
    assert there["DE"] <= {log_item for n, log_item in enumerate(ITEMS[:10]) if n < 10}
    assert there["FR"]
    assert not there["DE"] & there["FR"]
    assert not there["IT"] | there[None]


def test_scores_fall_and_positions_count_up() -> None:
    service = Service()
    service.catalogue(*ITEMS)
    service.live_through(a_log(200, items=40))
    for slate in slates_of(service.deliver(a_log(220, items=40)[200:])):
        scores = [item.score or 0.0 for item in slate.items]
        assert scores == sorted(scores, reverse=True)
        assert [item.position for item in slate.items] == list(range(len(scores)))
        assert all(item.propensity is None for item in slate.items), "no place is drawn by chance"


def test_a_trace_explains_its_slate() -> None:
    service = Service(small(slates={"trace_rate": 1.0}))
    service.catalogue(*ITEMS)
    service.live_through(a_log(200, items=40))
    answer = service.respond([an_event(300, "u1", "i001")])
    (trace,), (slate,) = answer.traces, slates_of(answer)
    assert (trace.slate_id, trace.user_id, trace.model_version) == (slate.slate_id, slate.user_id, slate.model_version)
    best = list(zip(trace.candidates, trace.scores, strict=True))[: len(slate.items)]
    assert best == [(item.item_id, item.score) for item in slate.items]
    assert trace.counts["ranked"] == len(trace.candidates) <= trace.counts["proposed"]
    assert trace.counts["shown"] == len(slate.items)
    assert trace.counts["proposed"] >= trace.counts["ranked"]
    assert trace.filtered["seen"] > 0
    assert all(len(row) == len(trace.feature_names) for row in trace.features)


def test_the_same_slates_are_traced_whenever_they_are_made() -> None:
    ids = [slate_id_of(Source("events", 0), offset, "home", 0) for offset in range(4_000)]
    traced = [each for each in ids if is_traced(each, 0.1)]
    assert 300 < len(traced) < 500
    assert set(traced) < {each for each in ids if is_traced(each, 0.2)}
    assert not any(is_traced(each, 0.0) for each in ids)
    assert all(is_traced(each, 1.0) for each in ids)


def test_tracing_changes_no_slate() -> None:
    def slates(rate: float) -> list[object]:
        service = Service(small(slates={"trace_rate": rate}))
        service.catalogue(*ITEMS)
        return [decode_slate(slate.value) for slate in service.respond(a_log(50, items=40)).slates]

    assert slates(0.0) == slates(1.0)
