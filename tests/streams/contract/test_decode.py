import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embeddings.events import CONSENT_ADS, CONSENT_ALL, Action, Fate, Source
from embeddings.ids import NO_ITEM, item_id, murmur2
from streams.contract.consent import NOTHING, Judge
from streams.contract.deadletters import REROUTED, Code
from streams.contract.decode import Decoded, decode
from streams.contract.parsing import Rules, depth, read
from streams.contract.records import decode_item, decode_request
from streams.settings import Consent, Settings

NOW = 1_750_000_000_000
DAY = 86_400_000
EVENTS = Source("events", 0)
RULES = Rules(judge=Judge(CONSENT_ALL))


class Raw(NamedTuple):
    offset: int
    value: bytes | None
    key: bytes | None = b"u1"
    headers: Sequence[tuple[str, bytes]] = ()
    timestamp: int = NOW


def event(**fields: Any) -> bytes:
    whole = {"user_id": "u1", "item_id": "m1", "type": "play", "event_time": NOW} | fields
    return json.dumps({name: value for name, value in whole.items() if value is not None}).encode()


def decode_values(*values: bytes | None, rules: Rules = RULES, **raw: Any) -> Decoded:
    return decode([(EVENTS, [Raw(offset, value, **raw) for offset, value in enumerate(values)])], rules, NOW)


def code_of(value: bytes | None, rules: Rules = RULES, **raw: Any) -> Code:
    decoded = decode_values(event(), value, event(), rules=rules, **raw)
    assert decoded.batch.offset_B.tolist() == [0, 2], "the neighbours of a bad record are read"
    (letter,) = decoded.dead
    assert (letter.source, letter.offset, letter.record.value) == (EVENTS, 1, value)
    return letter.code


def test_records_become_columns() -> None:
    decoded = decode_values(
        event(user_id="a", item_id="x", type="view", value=1.5),
        event(user_id="b", item_id="y", type="like", event_time=NOW - 1_500),
        event(user_id="a", item_id=None, type="impression", slate_id="s", slot=2),
    )
    batch = decoded.batch
    assert batch.user_ids == ("a", "b")
    assert batch.user_B.tolist() == [0, 1, 0]
    assert batch.item_B.tolist() == [item_id("x"), item_id("y"), NO_ITEM]
    assert batch.action_B.tolist() == [Action.view, Action.like, Action.impression]
    assert batch.value_B.tolist() == [1.5, 0.0, 0.0]
    assert batch.time_s_B.tolist() == [NOW // 1000, NOW // 1000 - 2, NOW // 1000]
    assert (batch.offset_B.tolist(), batch.source_B.tolist(), batch.sources) == ([0, 1, 2], [0, 0, 0], (EVENTS,))
    assert batch.refused_B.tolist() == [Fate.applied] * 3
    assert batch.consent_B.tolist() == [CONSENT_ALL] * 3
    assert decoded.names == {item_id("x"): "x", item_id("y"): "y"}
    assert [e.slot for e in decoded.events] == [None, None, 2]
    assert not decoded.aside


def test_column_types_never_change() -> None:
    for decoded in (decode_values(), decode_values(b"{"), decode_values(event()), decode_values(event(), b"{")):
        b = decoded.batch
        kinds = [b.user_B, b.item_B, b.action_B, b.value_B, b.time_s_B, b.source_B, b.offset_B, b.dedupe_B, b.consent_B]
        assert [array.dtype.str for array in [*kinds, b.refused_B]] == [
            "<i4", "<u8", "|u1", "<f4", "<i8", "<i4", "<i8", "<u4", "|u1", "|u1",
        ]  # fmt: skip
        assert {len(array) for array in kinds} == {len(decoded.events)}


def test_partitions_keep_their_order_beside_each_other() -> None:
    other = Source("events", 1)
    parts = [(EVENTS, [Raw(5, event()), Raw(7, event())]), (other, []), (Source("events", 2), [Raw(1, event())])]
    batch = decode(parts, RULES, NOW).batch
    assert batch.source_B.tolist() == [0, 0, 2]
    assert batch.offset_B.tolist() == [5, 7, 1]


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (None, Code.null_value),
        (b"", Code.malformed),
        (b"{", Code.malformed),
        (b"[]", Code.malformed),
        (b"null", Code.malformed),
        (event(type=7), Code.malformed),
        (event(event_time="now"), Code.malformed),
        (event(event_time=-1), Code.malformed),
        (event(user_id="u" * 513), Code.malformed),
        (event(context="tv"), Code.malformed),
        (b'{"type":"play","event_time":1,"user_id":"\\ud800"}', Code.malformed),
        (b'{"type":"play","event_time":1,"user_id":"\xff"}', Code.bad_utf8),
        (event(type=None), Code.missing_field),
        (event(event_time=None), Code.missing_field),
        (event(item_id=None), Code.missing_field),
        (event(item_id=""), Code.missing_field),
        (event(type="rating"), Code.missing_field),
        (event(value=1e39), Code.nan),
        (event(value=float("nan")), Code.nan),
        (event(value=float("-inf")), Code.nan),
        (event().replace(b'"play"', b'"play","value":1e999'), Code.nan),
        (event(value=10**400), Code.nan),
        (event(event_time=NOW + DAY + 1), Code.future),
        (event(event_time=NOW * 1000), Code.future),
        (event(event_time=10**40), Code.future),
        (event(event_time=0), Code.seconds),
        (event(event_time=NOW // 1000), Code.seconds),
        (event(event_time=4_102_444_800), Code.seconds),
        (event(pad="x" * 300_000), Code.too_large),
        (event(deep=json.loads("[" * 20 + "]" * 20)), Code.too_deep),
        (event()[:-1] + b',"deep":' + b"[" * 50_000 + b"]" * 50_000 + b"}", Code.too_deep),
    ],
)
def test_what_cannot_be_read_is_dead_lettered_with_a_code(value: bytes | None, code: Code) -> None:
    assert code_of(value) == code


def test_a_deep_structured_record_is_too_deep_even_for_the_reader() -> None:
    generous = Rules(judge=Judge(CONSENT_ALL), max_depth=10**6)
    assert code_of(event()[:-1] + b',"d":' + b"[" * 90_000 + b"]" * 90_000 + b"}", generous) == Code.too_deep


def test_reasons_quote_no_value() -> None:
    secret = "canary-4711"
    poison = [
        event(user_id=secret, type=7),
        event(event_time=secret),
        event(value=secret),
        event(context=secret),
        secret.encode(),
        event(user_id=secret)[:-3],
        event(item_id=secret, **{secret: float("nan")}),
        event(context={secret: {secret: 1}, "surface": 3}),
    ]
    for letter in decode_values(*poison).dead:
        assert secret not in letter.detail
        assert "4711" not in letter.detail


def test_brackets_in_text_are_not_depth() -> None:
    assert not decode_values(event(item_id="[" * 100 + '"{{'), event(item_id="\\" + "{" * 99)).dead
    assert depth(b'{"a\\"[[[":[{}]}') == 3


def test_a_user_id_may_be_left_to_the_key() -> None:
    decoded = decode_values(event(user_id=None), event(), key="zoë".encode())
    assert decoded.batch.user_ids == ("zoë", "u1")
    assert code_of(event(user_id=None), key=None) == Code.missing_field
    assert code_of(event(user_id=None), key=b"\xff") == Code.bad_utf8
    assert code_of(event(user_id=None), key=b"k" * 513) == Code.malformed


def test_a_type_nobody_knows_is_refused_and_not_dead_lettered() -> None:
    decoded = decode_values(event(type="teleport"), event(type="unknown", item_id=None))
    assert decoded.batch.refused_B.tolist() == [Fate.unknown_type] * 2
    assert not decoded.dead


def test_a_rating_is_a_dislike_or_a_play() -> None:
    ratings = [event(type="rating", value=value) for value in (0.5, 2, 2.5, 5)]
    expected = [Action.dislike, Action.dislike, Action.play, Action.play]
    assert decode_values(*ratings).batch.action_B.tolist() == expected
    assert decode_values(*ratings).batch.value_B.tolist() == [0.5, 2, 2.5, 5]
    every_play = Rules(judge=Judge(CONSENT_ALL), dislike_at_most=-np.inf)
    assert set(decode_values(*ratings, rules=every_play).batch.action_B.tolist()) == {Action.play}


def test_event_time_ahead_of_publish_time_is_clamped() -> None:
    decoded = decode_values(event(event_time=NOW + 5_000), event(event_time=NOW - 5_000))
    assert decoded.batch.time_s_B.tolist() == [NOW // 1000, NOW // 1000 - 5]


def test_a_replay_years_later_reads_as_the_first_pass_did() -> None:
    records = [Raw(0, event(event_time=NOW + 5_000)), Raw(1, event(event_time=NOW + 2 * DAY))]
    first, later = (decode([(EVENTS, records)], RULES, now) for now in (NOW, NOW + 3_000 * DAY))
    assert first.batch.time_s_B.tolist() == later.batch.time_s_B.tolist() == [NOW // 1000]
    assert [letter.code for letter in later.dead] == [Code.future]


@pytest.mark.parametrize("timestamp", [NOW // 1000, -1, 0, 1, NOW * 1000, NOW * 1_000_000])
def test_a_record_timestamp_that_no_clock_shows_is_no_publish_time(timestamp: int) -> None:
    """Seconds, micro- and nanoseconds, or none: event time stands for it, and nobody's event is in the future."""
    decoded = decode_values(event(), event(event_time=NOW - 10 * DAY), event(event_time=NOW + 1), timestamp=timestamp)
    assert not decoded.dead
    assert decoded.misdated == 3
    assert decoded.batch.time_s_B.tolist() == [NOW // 1000, NOW // 1000 - 864_000, NOW // 1000]
    assert decoded.published_ms_B.tolist() == [NOW, NOW - 10 * DAY, NOW]
    ahead = decode_values(event(), event(event_time=NOW + 2 * DAY), timestamp=timestamp)
    assert [(letter.offset, letter.code) for letter in ahead.dead] == [(1, Code.future)]


@pytest.mark.parametrize("clock_ms", [1_000, NOW - 30 * DAY, NOW + 30 * DAY, NOW + 20_000 * DAY])
def test_no_fate_depends_on_the_reader_s_clock(clock_ms: int) -> None:
    ahead, behind = NOW + 2 * DAY, NOW - 9 * DAY
    whens = [(NOW, NOW), (behind, NOW), (NOW + DAY // 2, NOW), (ahead, NOW), (ahead, NOW + 3 * DAY)]
    records = [Raw(n, event(event_time=time_ms), timestamp=at) for n, (time_ms, at) in enumerate(whens)]
    decoded = decode([(EVENTS, records)], RULES, clock_ms)
    assert [letter.offset for letter in decoded.dead] == [3]
    assert decoded.batch.time_s_B.tolist() == [time_ms // 1000 for time_ms in (NOW, behind, NOW, ahead)]
    assert decoded.misdated == (5 if clock_ms < NOW else 0)


def test_an_explicit_null_reads_as_an_absent_field() -> None:
    nulls = dict.fromkeys(("gdpr", "tcf", "gpp", "gpp_sid", "coppa", "lmt"))
    said = {"type": "play", "item_id": "m1", "event_time": NOW}
    more = dict.fromkeys(("user_id", "value", "event_id", "slate_id", "slot", "context"))
    values = [
        said | more | {"consent": None},
        said | {"consent": nulls},
        said | {"context": {"surface": None, "utcoffset": None}},
    ]
    batch = decode_values(*(json.dumps(value).encode() for value in values)).batch
    assert batch.user_ids == ("u1",)
    assert batch.consent_B.tolist() == [CONSENT_ALL] * 3
    for required in ("type", "event_time", "item_id"):
        assert code_of(json.dumps(said | {required: None}).encode()) == Code.missing_field
    assert code_of(json.dumps(said | {"consent": {"gpp_sid": [None]}}).encode()) == Code.malformed
    envelope = json.dumps({"specversion": "1.0", "id": None, "source": None, "data": said | more}).encode()
    assert not decode_values(envelope, headers=[("content-type", b"application/cloudevents+json")]).dead


@pytest.mark.parametrize("field", ["user_id", "item_id"])
@pytest.mark.parametrize("odd", ['{"id":"u2"}', '"u2"', '["u2"]', "\0\0\0\0*u2", "Struct{id=u2}"])
def test_what_a_serialiser_made_of_an_id_is_nobody_s(field: str, odd: str) -> None:
    assert code_of(event(**{field: odd})) == Code.malformed
    decoded = decode_values(json.dumps({"type": "play", "item_id": "m", "event_time": NOW}).encode(), key=odd.encode())
    assert [(letter.code, "key.converter" in letter.detail) for letter in decoded.dead] == [(Code.malformed, True)]


def test_a_quoted_key_beside_a_user_id_harms_nobody() -> None:
    assert decode_values(event(), key=b'"u1"').batch.user_ids == ("u1",)


@pytest.mark.parametrize(
    ("value", "code", "advice"),
    [
        (b"\0\0\0\0*" + event(), Code.malformed, "magic byte"),
        (json.dumps(event().decode()).encode(), Code.malformed, "StringConverter"),
        (b"\xef\xbb\xbf" + event(), Code.malformed, "byte order mark"),
        (b'{"schema":{},"payload":' + event() + b"}", Code.missing_field, "schemas.enable=false"),
        (b'{"before":null,"after":' + event() + b',"op":"c"}', Code.missing_field, "ExtractNewRecordState"),
        (b'{"specversion":"1.0","id":"1","data":' + event() + b"}", Code.missing_field, "content-type"),
    ],
)
def test_what_a_serialiser_wraps_around_an_event_is_told(value: bytes, code: Code, advice: str) -> None:
    (letter,) = decode_values(value).dead
    assert (letter.code, letter.record.value) == (code, value)
    assert advice in letter.detail


def test_consent_is_judged_and_its_absence_refused() -> None:
    deny = Rules(judge=Judge(NOTHING))
    consents = [None, {"gdpr": 0}, {"gdpr": 1, "tcf": "x"}, {"lmt": 1}]
    batch = decode_values(*(event(consent=consent) for consent in consents), rules=deny).batch
    assert batch.refused_B.tolist() == [Fate.unconsented, Fate.applied, Fate.unconsented, Fate.unconsented]
    assert decode_values(event(consent={"gdpr": 0, "lmt": 1})).batch.consent_B[0] == CONSENT_ALL & ~CONSENT_ADS


def test_duplicates_are_known_by_ce_source_and_ce_id_then_by_event_id() -> None:
    def dedupe(value: bytes, *headers: tuple[str, bytes]) -> int:
        return int(decode_values(value, headers=headers).batch.dedupe_B[0])

    source, ident = ("ce_source", b"/app"), ("ce_id", b"1")
    assert dedupe(event()) == 0
    assert dedupe(event(), source, ident) == dedupe(event(event_id="other"), ident, source) != 0
    assert dedupe(event(), source, ident) != dedupe(event(), ("ce_source", b"/b"), ident)
    assert dedupe(event(event_id="1")) == dedupe(event(event_id="1"), source) != 0
    assert dedupe(event(event_id="1")) != dedupe(event(event_id="2"))


def test_structured_mode_reads_like_binary_mode() -> None:
    envelope = b'{"specversion":"1.0","id":"1","source":"/app","type":"t","data":' + event() + b"}"
    structured = decode_values(envelope, headers=[("content-type", b"application/CloudEvents+json")])
    binary = decode_values(event(), headers=[("ce_id", b"1"), ("ce_source", b"/app")])
    assert structured.events == binary.events
    assert structured.batch.dedupe_B.tolist() == binary.batch.dedupe_B.tolist()
    for bad, code in (
        (b"{}", Code.missing_field),
        (event(), Code.missing_field),
        (b'{"data_base64":"%"}', Code.malformed),
        (b'{"data":[]}', Code.malformed),
    ):
        (letter,) = decode_values(bad, headers=[("content-type", b"application/cloudevents")]).dead
        assert (letter.code, "`data`" in letter.detail) == (code, code == Code.missing_field)


def partition_of(user: str, partitions: int) -> int:
    return int(murmur2([user.encode()])[0]) % partitions


def test_a_record_in_a_foreign_partition_is_published_again_once() -> None:
    rules = Rules(judge=Judge(CONSENT_ALL), partitions={"events": 8})
    home = Source("events", partition_of("u1", 8))
    foreign = Source("events", (home.partition + 1) % 8)
    headers = [("ce_id", b"1"), ("traceparent", b"00")]
    decoded = decode([(home, [Raw(0, event())]), (foreign, [Raw(3, event(), headers=headers, key=None)])], rules, NOW)
    (moved,) = decoded.misrouted
    assert (moved.source, moved.offset) == (foreign, 3)
    out = moved.outgoing
    assert (out.topic, out.key, out.value, out.partition) == ("events", b"u1", event(), home.partition)
    assert out.headers[:2] == headers
    assert out.headers[2][0] == REROUTED
    assert decoded.batch.source_B.tolist() == [0]
    assert decoded.aside == [(foreign, 3, Fate.misrouted)]
    again = decode([(foreign, [Raw(9, event(), headers=out.headers)])], rules, NOW)
    assert [letter.code for letter in again.dead] == [Code.misrouted]
    null: Any = [(REROUTED, None)]
    assert [letter.code for letter in decode([(foreign, [Raw(9, event(), headers=null)])], rules, NOW).dead] == [
        Code.misrouted
    ]
    assert not decode([(home, [Raw(9, event(), headers=out.headers)])], rules, NOW).aside


def test_a_misrouted_record_that_no_topic_would_take_again_is_a_dead_letter() -> None:
    rules = Rules(judge=Judge(CONSENT_ALL), partitions={"events": 8})
    foreign = Source("events", (partition_of("u1", 8) + 1) % 8)
    record = Raw(3, event(), headers=[("traceparent", b"x" * 3_000_000)])
    decoded = decode([(foreign, [record])], rules, NOW)
    assert [letter.code for letter in decoded.dead] == [Code.misrouted]
    assert not decoded.misrouted


def test_a_nameless_record_gets_an_identity_when_it_is_published_again() -> None:
    """Killed before its offset is stored, the worker publishes it twice: the second one is then a duplicate."""
    rules = Rules(judge=Judge(CONSENT_ALL), partitions={"events": 8})
    home = Source("events", partition_of("u1", 8))
    foreign = Source("events", (home.partition + 1) % 8)
    once, twice = (decode([(foreign, [Raw(3, event())])], rules, NOW).misrouted[0].outgoing for _ in range(2))
    batch = decode(
        [(home, [Raw(7, event(), headers=once.headers), Raw(8, event(), headers=twice.headers)])], rules, NOW
    )
    first, second = batch.batch.dedupe_B.tolist()
    assert first == second != 0


def test_partitions_are_not_checked_where_their_count_is_unknown() -> None:
    assert not any(decode([(Source("events", p), [Raw(0, event())])], RULES, NOW).aside for p in range(8))


def test_rows_of_users_without_a_readable_record_are_gone() -> None:
    decoded = decode_values(event(user_id="gone", item_id=None), event(user_id="here"))
    assert decoded.batch.user_ids == ("here",)
    assert decoded.batch.user_B.tolist() == [0]


RECORDS = st.one_of(
    st.none(),
    st.binary(max_size=60),
    st.builds(
        event,
        user_id=st.sampled_from(["a", "b", "", None]),
        item_id=st.sampled_from(["x", "", None]),
        type=st.sampled_from(["play", "rating", "click", "teleport", 3]),
        value=st.one_of(st.none(), st.floats(), st.integers()),
        event_time=st.one_of(st.integers(NOW - DAY, NOW + 3 * DAY), st.integers(), st.text(max_size=3)),
        event_id=st.one_of(st.none(), st.text(max_size=3)),
        more=st.recursive(st.text(), lambda inner: st.lists(inner, max_size=2), max_leaves=30),
    ),
)


@given(st.lists(RECORDS, max_size=8), st.lists(RECORDS, max_size=8))
def test_every_record_is_a_row_or_put_aside_and_alone_it_reads_the_same(
    left: list[bytes | None], right: list[bytes | None]
) -> None:
    rules = Rules(judge=Judge(CONSENT_ALL), partitions={"events": 2})
    parts = [
        (Source("events", p), [Raw(10 * n, value) for n, value in enumerate(values)])
        for p, values in enumerate((left, right))
    ]
    whole = decode(parts, rules, NOW)
    b = whole.batch
    rows = {(b.sources[s], o) for s, o in zip(b.source_B.tolist(), b.offset_B.tolist(), strict=True)}
    aside = {(source, offset) for source, offset, _ in whole.aside}
    assert not rows & aside
    assert rows | aside == {(source, record.offset) for source, records in parts for record in records}
    assert len(whole.events) + len(whole.aside) == len(left) + len(right)
    alone = [decode([(source, [record])], rules, NOW) for source, records in parts for record in records]
    for name in ("item_B", "action_B", "value_B", "time_s_B", "dedupe_B", "consent_B", "refused_B"):
        single = np.concatenate([getattr(one.batch, name) for one in alone] or [np.empty(0)])
        assert np.array_equal(getattr(b, name), single), name
    assert [b.user_ids[u] for u in b.user_B] == [one.batch.user_ids[0] for one in alone if len(one.batch)]
    assert sorted(x.code for x in whole.dead) == sorted(x.code for one in alone for x in one.dead)


def test_rare_topics_are_read_record_by_record() -> None:
    source = Source("catalog", 0)
    records = [Raw(0, b'{"title":"A"}'), Raw(1, None), Raw(2, b"{"), Raw(3, b'{"title":"B"}')]
    good, dead = read(source, records, decode_item, RULES, compacted=True)
    assert [(record.offset, item and item.title) for record, item in good] == [(0, "A"), (1, None), (3, "B")]
    assert [(letter.offset, letter.code) for letter in dead] == [(2, Code.malformed)]
    _, dead = read(Source("requests", 0), [Raw(0, None), Raw(1, b"{}")], decode_request, RULES)
    assert [letter.code for letter in dead] == [Code.null_value, Code.missing_field]


def test_rules_come_from_the_settings() -> None:
    rules = Rules.of(Settings(consent=Consent(default="deny")), {"events": 8})
    assert (rules.judge.default, rules.max_bytes, rules.partitions) == (NOTHING, 262_144, {"events": 8})
