"""Whatever is on a topic gets a fate: a decoder fed with anything raises nothing but what its callers expect."""

import dataclasses
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec
import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from embeddings.events import CONSENT_ALL, Fate, Source
from embeddings.items import Items
from ranking.ads.currencies import Currencies
from ranking.ads.inventory import Inventory
from ranking.ads.opportunities import Vocabulary
from ranking.ads.selection import Slots
from streams.contract import observations, records
from streams.contract.catalogue_records import read_catalogue
from streams.contract.cloudevents import echo, event_headers
from streams.contract.consent import Judge, UnreadableConsent, gpp_bits, tcf_bits
from streams.contract.counter_records import counts_of, of_one_life
from streams.contract.deadletters import Code, DeadLetter, NotReplayable, Reason, dead_letter_record, replay_record
from streams.contract.decode import decode
from streams.contract.manifests import manifest_of
from streams.contract.observations import Observation, UnreadableObservation
from streams.contract.openrtb import bid_request
from streams.contract.parsing import Rules, read
from streams.serving.ad_requests import AskRules, ad_ask
from streams.serving.policies import Policies
from streams.serving.slates import Trigger
from streams.serving.viewers import viewer_of
from streams.settings import Settings
from tests.fuzzing import INT64, VALUES, damaged, fuzz, fuzz_service, objects, written
from tests.streams.builders import EVENTS, NOW_MS, REQUESTS, Part, Raw, Service, a_learner, a_log, told

RULES = Rules(judge=Judge(CONSENT_ALL), partitions={"events": 2})
ASKED = AskRules(
    currency="EUR", rates=Currencies(version="1", micros={"EUR": 10**6, "USD": 1_083_412}), secret=b"pepper"
)
ODD = ['"u1"', "\0\0\0\0\0u", '{"id":', "u1\n", "\ufeffu1", "Struct{id=1}"]
IDS = st.sampled_from(["u1", "u2", "m1", "m2", "", "null", "😀", *ODD])
TIMES = st.one_of(st.integers(NOW_MS - 10**9, NOW_MS + 10**9), st.integers(0, 2 * 10**9), INT64)
LETTERS = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", max_size=80)
STRINGS = st.one_of(LETTERS, LETTERS.map("C".__add__), LETTERS.map("DBAB".__add__), st.text(max_size=30))
SEGMENTS = st.lists(STRINGS, max_size=4).map(".".join) | st.lists(STRINGS, max_size=4).map("~".join)
FLAGS = st.sampled_from([0, 1, 2, True, False])
CONSENTS = objects(
    gdpr=FLAGS, tcf=SEGMENTS, gpp=SEGMENTS, gpp_sid=st.lists(st.integers(-2, 30), max_size=3), coppa=FLAGS, lmt=FLAGS
)
CONTEXTS = objects(surface=IDS, device=IDS, country=IDS, session_id=IDS, utcoffset=st.integers(-800, 800))
EVENT = objects(
    user_id=IDS, item_id=IDS, type=st.sampled_from(["play", "like", "rating", "impression", "click", "?"]),
    event_time=TIMES, value=st.floats(), event_id=IDS, slate_id=IDS, slot=INT64, context=CONTEXTS, consent=CONSENTS,
)  # fmt: skip
REQUEST = objects(
    request_id=IDS, user_id=IDS, surface=IDS, n=st.integers(0, 50), context=CONTEXTS, exclude=st.lists(IDS, max_size=3),
    deadline_ms=st.integers(0, 1_000), event_time=TIMES, personalised=st.booleans(), consent=CONSENTS,
    imp=st.lists(objects(id=IDS, secure=FLAGS, bidfloor=st.floats(), video=st.just({})), max_size=2),
)  # fmt: skip
SMALL, WORDS, DECIMALS = st.integers(0, 900), st.lists(IDS, max_size=2), st.floats(-9, 1e38, allow_subnormal=True)


def right(**members: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with some of these members, of the right types."""
    return st.fixed_dictionaries({}, optional=members)


AD_FORMATS = right(
    w=SMALL, h=SMALL, mimes=WORDS, battr=st.lists(SMALL, max_size=2), minduration=SMALL, maxduration=SMALL,
    mincpmpersec=DECIMALS, format=st.lists(right(w=SMALL, h=SMALL), max_size=2),
)  # fmt: skip
MONEY = {"bidfloor": DECIMALS, "bidfloorcur": st.sampled_from(["USD", "eur", "XTS", ""])}
IMPS = st.fixed_dictionaries(
    {"id": IDS},
    optional=MONEY | {
        "tagid": IDS, "exp": SMALL, "video": AD_FORMATS, "banner": AD_FORMATS, "audio": AD_FORMATS, "bcat": WORDS,
        "badv": WORDS, "pmp": right(deals=st.lists(st.fixed_dictionaries({"id": IDS}, optional=MONEY), max_size=2)),
    },
)  # fmt: skip
AD_REQUEST = st.fixed_dictionaries(
    {"request_id": st.just("r"), "imp": st.lists(IMPS, max_size=3)},
    optional={
        "at": SMALL, "cur": st.lists(st.sampled_from(["USD", "EUR", ""]), max_size=2), "tmax": SMALL, "cattax": SMALL,
        "bcat": WORDS, "keyvalues": st.dictionaries(IDS, IDS | WORDS, max_size=2),
        "context": right(surface=IDS, device=IDS, country=IDS, language=IDS, utcoffset=INT64, age_limit=SMALL),
        "user": st.just({"data": [{"segment": [{"id": "a"}, {}]}]}),
        "device": right(devicetype=SMALL, lmt=FLAGS, geo=right(lat=DECIMALS, lon=DECIMALS, utcoffset=SMALL)),
        "site": right(domain=IDS, keywords=IDS, content=right(genre=IDS, cat=WORDS, contentrating=IDS, len=SMALL)),
        "regs": right(gdpr=FLAGS, us_privacy=LETTERS, gpp=SEGMENTS, gpp_sid=st.lists(SMALL, max_size=3), coppa=FLAGS),
    },
)  # fmt: skip
ITEM = objects(
    item_id=IDS, title=IDS, text=IDS, categories=st.lists(IDS, max_size=3), year=INT64, available_from=TIMES,
    available_until=TIMES, embedding=st.lists(st.floats(), max_size=3), __deleted=FLAGS, payload=VALUES, after=VALUES,
    before=VALUES, schema=VALUES, deleted=FLAGS | VALUES, op=st.sampled_from("cdu"), __op=st.sampled_from("rd"),
)  # fmt: skip
COUNTER = objects(
    item_id=IDS, popularity=st.lists(st.floats(), max_size=4), likes=st.floats(), dislikes=st.floats(),
    shown=st.floats(), clicked=st.floats(), last_taken_s=INT64, first_seen_s=INT64, events=st.floats(), time_ms=INT64,
    epoch=INT64, clock_s=INT64,
)  # fmt: skip
MANIFEST = objects(
    version=st.integers().map(str) | st.text("0123456789²٣", max_size=30), uri=IDS, sha256=IDS, bytes=INT64,
    kind=IDS, created_ms=INT64, shapes=st.dictionaries(IDS, st.lists(INT64, max_size=2), max_size=2),
)  # fmt: skip
PLACE = [f"__connect.errors.{name}" for name in ("topic", "partition", "offset")]
NAMES = st.sampled_from(
    ["ce_id", "ce_source", "content-type", "Content-Type", "traceparent", "reply_to", "marquee-rerouted", "marquee.cut",
     "marquee.attempts", "marquee.code", *PLACE]
)  # fmt: skip
SAID = st.one_of(
    st.binary(max_size=12), st.sampled_from([b"application/cloudevents", b"1", b"9" * 5_000, "²".encode()]), st.none()
)
HEADERS = st.lists(st.tuples(NAMES | st.text(max_size=5), SAID), max_size=6)
KEYS = st.none() | IDS.map(str.encode) | st.binary(max_size=8) | st.just(b"k" * 600)


def raws(contents: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Raw]]:
    """Up to four records: objects of these members, in structured mode too, damaged, or no JSON at all."""
    whole = contents | objects(specversion=st.just("1.0"), id=IDS, source=IDS, data=contents, data_base64=IDS)
    values = st.none() | damaged(whole.map(written)) | whole.map(written) | st.binary(max_size=20)
    record = st.builds(Raw, st.just(0), values, KEYS, HEADERS, TIMES)  # type: ignore[arg-type]
    numbered = st.lists(record, min_size=1, max_size=4)
    return numbered.map(lambda some: [raw._replace(offset=n) for n, raw in enumerate(some)])


def all_there(some: Sequence[Raw], dead: Sequence[DeadLetter], others: int) -> None:
    """Every record has one fate, and every dead letter can be written, read and sent back."""
    assert len(dead) + others == len(some)
    for letter in dead:
        again = replayed(letter)
        assert again is None or (again.key, again.value) == (letter.record.key, letter.record.value)


def replayed(letter: DeadLetter) -> Raw | None:
    out = dead_letter_record(letter, "dlq")
    kept = Raw(0, out.value, out.key, out.headers)
    assert Reason.of(kept).code == letter.code
    with suppress(NotReplayable):
        back = replay_record(kept)
        return Raw(0, back.value, back.key, back.headers)
    return None


@given(raws(EVENT), st.integers(0, 1), TIMES.filter(lambda now_ms: 0 <= now_ms < 2**42))
@fuzz
def test_fuzz_every_event_has_one_fate(some: list[Raw], partition: int, now_ms: int) -> None:
    decoded = decode([(Source("events", partition), some)], RULES, now_ms)
    assert len(decoded.misrouted) == sum(fate == Fate.misrouted for *_, fate in decoded.aside)
    all_there(some, decoded.dead, len(decoded.batch) + len(decoded.misrouted))
    assert not {*decoded.batch.user_ids, *decoded.names.values()}.intersection(ODD)
    assert not (decoded.batch.time_s_B < 10**8).any()
    assert not (decoded.batch.time_s_B >= 2**32).any()


@given(raws(REQUEST))
@fuzz
def test_fuzz_every_request_is_read_or_put_aside(some: list[Raw]) -> None:
    good, dead = read(REQUESTS, some, records.decode_request, RULES)
    all_there(some, dead, len(good))


@given(AD_REQUEST)
@fuzz
def test_fuzz_every_ad_slot_is_a_place_or_unfilled(said: dict[str, Any]) -> None:
    try:
        request = records.decode_request(written(said))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return
    policy = Policies.of(Settings()).on("home")
    said_too = {"user_id": "u1", "source": REQUESTS, "offset": 1, "event_ms": NOW_MS, "published_ms": NOW_MS}
    trigger = Trigger(viewer=viewer_of(request.context, "home"), policy=policy, size=5, **said_too)  # type: ignore[arg-type]
    asked = ad_ask(request, trigger, RULES.judge.of_request(request), ASKED)
    assert asked == ad_ask(request, trigger, RULES.judge.of_request(request), dataclasses.replace(ASKED))
    assert (asked is None) == (not request.imp)
    if asked is not None:
        taken = [name for place in asked.places for name in place.imp_ids] + [each.imp_id for each in asked.unfilled]
        assert sorted(taken) == sorted(imp.id for imp in request.imp)
        ids = [name for place in asked.places for name in place.decision_ids]
        assert len({*ids, *(each.decision_id for each in asked.unfilled)}) == len(request.imp)
        vocabulary = Vocabulary()
        vocabulary.encode([place.opportunity for place in asked.places])
        Slots.of([place.slot for place in asked.places], Inventory().snapshot())
        bid_request(request)


@given(raws(EVENT), raws(REQUEST))
@fuzz_service
def test_fuzz_whatever_can_be_read_is_answered_and_learned(events: list[Raw], requests: list[Raw]) -> None:
    service = Service()
    service.catalogue("m1", "m2", "m3")
    answer = service.deliver(events)
    assert len(answer.fate_R) == len(events)
    service.learn(answer)
    slates, dead = service.answerer.respond([Part(REQUESTS, requests, requests[-1].offset, -1)])
    all_there(requests, dead, len(slates))
    for slate in slates:
        assert records.decode_slate(slate.value).request_id


@given(raws(ITEM), st.dictionaries(KEYS.filter(bool), st.just("m1"), max_size=2))
@fuzz
def test_fuzz_every_catalogue_record_is_a_fact_a_removal_or_put_aside(
    some: list[Raw], aliases: dict[bytes, str]
) -> None:
    kept, removed, dead = read_catalogue(Source("catalog", 0), some, RULES, aliases)
    all_there([letter.record for letter in dead], dead, 0)  # type: ignore[misc]
    assert bool(kept or removed) or len(dead) == len(some)
    assert not {*removed, *(item.facts.name for item in kept)}.intersection(ODD)
    items = Items(8)
    items.add([item.facts for item in kept])
    assert items.blocked(NOW_MS // 1000)[[items.remove(name) for name in removed]].all()


@given(raws(COUNTER))
@fuzz
def test_fuzz_every_counter_is_counted_or_put_aside(some: list[Raw]) -> None:
    good, dead = read(Source("counters", 0), some, records.decode_counter, RULES, compacted=True)
    all_there(some, dead, len(good))
    if counters := [counter for _, counter in good if counter is not None]:
        counts = counts_of(of_one_life(counters))
        assert np.isfinite(counts.popularity_N4).all()
        Items(8).count(counts)


@given(raws(MANIFEST))
@fuzz
def test_fuzz_every_manifest_is_read_or_put_aside(some: list[Raw]) -> None:
    good, dead = read(Source("models", 0), some, records.decode_model, RULES, compacted=True)
    all_there(some, dead, len(good))
    for _, manifest in good:
        if manifest is not None and manifest.version.isdecimal():
            assert manifest_of(manifest).version >= 0


@given(CONSENTS)
@fuzz
@example({"gdpr": 1, "tcf": "CPAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=="})
@example({"gpp": "DBA" + "A" * 16_000, "gpp_sid": [7]})
def test_fuzz_no_consent_is_judged_by_an_exception(said: dict[str, Any]) -> None:
    try:
        consent = msgspec.json.decode(written(said), type=records.Consent)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return
    for vendor in (None, 7):
        assert 0 <= Judge(CONSENT_ALL, vendor).bits(consent) <= CONSENT_ALL


@given(SEGMENTS, st.lists(st.integers(-2, 30), max_size=3).map(tuple), st.none() | st.integers(1, 65_535))
@fuzz
def test_fuzz_consent_strings_are_read_or_unreadable(text: str, sections: tuple[int, ...], vendor: int | None) -> None:
    for judged in (lambda: tcf_bits(text, vendor), lambda: gpp_bits(text, sections, vendor)):
        with suppress(UnreadableConsent):
            assert 0 <= judged() <= CONSENT_ALL


@given(HEADERS, st.binary(max_size=20) | st.none(), KEYS, st.sampled_from(list(Code)))
@fuzz
def test_fuzz_headers_are_repeated_and_buried_whatever_they_are(
    headers: Any, value: bytes | None, key: bytes | None, code: Code
) -> None:
    record = Raw(3, value, key, headers)
    again = replayed(DeadLetter(EVENTS, 3, record, code, "why"))
    assert again is None or (again.key, again.value) == (key, value)
    with suppress(NotReplayable):
        replay_record(record)
    event_headers("id", "type", "source", 0, echo("t", 0, 0, headers))


def _seeds() -> list[bytes]:
    service = Service()
    service.catalogue(*(f"i{n:03d}" for n in range(10)))
    answers = [service.deliver(a_log(30, items=10)[at : at + 10]) for at in range(0, 30, 10)]
    whole = [observation for answer in answers for observation in told(answer)]
    odd = dataclasses.replace(whole[-1], action_R=np.full(len(whole[-1]), 255, np.uint8))
    return [observations.encode(observation) for observation in [*whole, odd]]


SEEDS = _seeds()


@given(damaged(st.sampled_from(SEEDS)) | st.binary(max_size=40) | VALUES.map(written))
@fuzz
def test_fuzz_an_observation_is_read_whole_or_refused(value: bytes) -> None:
    with suppress(UnreadableObservation):
        observation: Observation = observations.decode(value)
        assert len(observation) == len(observation.item_R) > 0
        assert list(observations.pieces(observation, most_bytes=1))


@given(st.lists(damaged(st.sampled_from(SEEDS)), min_size=1, max_size=3))
@fuzz_service
def test_fuzz_whatever_observation_can_be_read_can_be_learned(values: list[bytes]) -> None:
    learner = a_learner(Service().settings)
    for value in values:
        with suppress(UnreadableObservation):
            learner.learn(observations.decode(value))
    learner.freeze()
