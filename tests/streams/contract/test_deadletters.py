import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embeddings.events import Source
from streams.commands.dead_letter_admin import Done, _Pass
from streams.contract.cloudevents import echo
from streams.contract.deadletters import (
    MEANING,
    REROUTED,
    Code,
    DeadLetter,
    NotReplayable,
    Reason,
    attempts_of,
    dead_letter_record,
    replay_record,
)
from streams.contract.messages import Outgoing
from tests.fuzzing import thorough

SOURCE = Source("marquee.events.v1", 3)
HEADERS = [("ce_id", b"1"), ("ce_source", b"/app"), ("x", b"\xff\x00"), ("x", b"again")]


class Raw(NamedTuple):
    value: bytes | None = b'{"type":7}'
    key: bytes | None = b"u1"
    headers: Sequence[tuple[str, bytes]] = HEADERS
    offset: int = 9
    timestamp: int = 0


def buried(record: Raw, code: Code = Code.malformed) -> Outgoing:
    return dead_letter_record(DeadLetter(SOURCE, record.offset, record, code, "a reason"), "events.dlq")


def found(out: Outgoing) -> Raw:
    return Raw(out.value, out.key, out.headers)


def test_key_value_and_headers_are_kept_byte_for_byte() -> None:
    out = buried(Raw())
    assert (out.topic, out.key, out.value) == ("events.dlq", b"u1", b'{"type":7}')
    assert list(out.headers[:4]) == HEADERS
    assert list(out.headers[4:]) == [
        ("__connect.errors.topic", b"marquee.events.v1"),
        ("__connect.errors.partition", b"3"),
        ("__connect.errors.offset", b"9"),
        ("__connect.errors.stage", b"decode"),
        ("__connect.errors.class.name", b"marquee.malformed"),
        ("__connect.errors.exception.message", b"a reason"),
        ("marquee.code", b"malformed"),
        ("marquee.attempts", b"0"),
    ]


def test_too_large_a_value_is_kept_as_size_and_hash_only() -> None:
    value = b"x" * 300_000
    out = buried(Raw(value), Code.too_large)
    assert json.loads(out.value or b"") == {"size_bytes": 300_000, "sha256": hashlib.sha256(value).hexdigest()}
    with pytest.raises(NotReplayable, match="too large"):
        replay_record(found(out))


TRACE = ("traceparent", b"t" * 3_000_000)
HUGE = st.sampled_from([0, 100, 70_000, 3_000_000])


@given(HUGE, HUGE, st.integers(0, 300), HUGE)
@thorough(30)
def test_a_dead_letter_always_fits_into_its_topic(key: int, header: int, headers: int, name: int) -> None:
    """A compressed batch may hold any of these; the topic has 1 MiB of room beside the largest value."""
    record = Raw(key=b"k" * key, headers=[("h", b"v" * header), ("n" * name, b""), *[("x", b"y" * 2_000)] * headers])
    out = buried(record)
    size = len(out.key or b"") + len(out.value or b"") + sum(len(n.encode()) + len(v) for n, v in out.headers)
    assert size < 500_000
    assert Reason.of(found(out)).offset == 9
    cut = dict(out.headers).get("marquee.cut", b"").split()
    assert (b"key" in cut) == (key > 65_536)
    if cut:
        with pytest.raises(NotReplayable, match="too large to keep whole"):
            replay_record(found(out))
    else:
        assert list(replay_record(found(out)).headers[:-1]) == list(record.headers)


def test_what_is_cut_is_kept_as_size_and_hash() -> None:
    out = buried(Raw(key=b"k" * 3_000_000, headers=[*HEADERS, TRACE]))
    for said, whole in ((out.key, b"k" * 3_000_000), (dict(out.headers)["traceparent"], TRACE[1])):
        assert json.loads(said or b"") == {"size_bytes": 3_000_000, "sha256": hashlib.sha256(whole).hexdigest()}
    assert list(out.headers[: len(HEADERS)]) == HEADERS, "short headers are kept"
    assert out.value == b'{"type":7}'


def test_what_may_be_more_than_a_topic_takes_has_a_smaller_self() -> None:
    """As after `events.max_bytes` was raised and the topics were not."""
    large, small = buried(Raw(b"{" * 200_000)), buried(Raw())
    assert (large.value, small.smaller) == (b"{" * 200_000, None)
    assert large.smaller is not None
    assert len(large.smaller.value or b"") < 200
    assert dict(large.smaller.headers)["marquee.cut"] == b"value"
    assert list(large.smaller.headers[: len(HEADERS)]) == HEADERS


def test_what_a_slate_repeats_of_its_cause_is_short() -> None:
    trace = ("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    assert echo("t", 0, 1, [trace])[1] == trace
    assert len(echo("t", 0, 1, [TRACE])[1][1]) < 200


def test_a_cut_that_another_system_speaks_of_is_not_ours() -> None:
    assert replay_record(found(buried(Raw(headers=[*HEADERS, ("marquee.cut", b"key")])))).key == b"u1"


def test_a_null_stays_null() -> None:
    assert buried(Raw(None), Code.null_value).value is None


def test_a_replay_goes_where_the_record_came_from_with_its_own_headers() -> None:
    out = replay_record(found(buried(Raw())))
    assert (out.topic, out.key, out.value, out.partition) == ("marquee.events.v1", b"u1", b'{"type":7}', None)
    assert list(out.headers) == [*HEADERS, ("marquee.attempts", b"1")]


def test_a_record_without_key_goes_back_to_its_partition() -> None:
    assert replay_record(found(buried(Raw(key=None)))).partition == 3


def test_a_replayed_misrouted_record_may_be_rerouted_again() -> None:
    out = replay_record(found(buried(Raw(headers=[*HEADERS, (REROUTED, b"1")]), Code.misrouted)))
    assert REROUTED not in dict(out.headers)


def test_dead_letters_of_others_are_not_ours_to_replay() -> None:
    with pytest.raises(NotReplayable, match="error headers are missing"):
        replay_record(Raw(headers=[("__connect.errors.topic", b"t")]))


def test_a_dead_letter_of_another_system_keeps_that_systems_headers() -> None:
    foreign = [*HEADERS, ("__connect.errors.topic", b"theirs"), ("__connect.errors.offset", b"4")]
    out = replay_record(found(buried(Raw(headers=foreign))))
    assert list(out.headers[:-1]) == foreign
    assert Reason.of(found(buried(Raw(headers=foreign)))).source == SOURCE


TEXT = st.text(min_size=1, max_size=8)


@given(
    st.lists(st.tuples(TEXT, st.binary(max_size=8)), max_size=4), st.none() | st.binary(), st.none() | st.binary(),
    st.sampled_from([code for code in Code if code is not Code.too_large]), st.integers(1, 5),
)  # fmt: skip
def test_any_record_survives_any_number_of_burials(
    headers: list[tuple[str, bytes]], key: bytes | None, value: bytes | None, code: Code, times: int
) -> None:
    record = Raw(value, key, headers)
    for attempt in range(1, times + 1):
        out = replay_record(found(buried(record, code)))
        assert (out.key, out.value, list(out.headers[:-1])) == (key, value, headers)
        assert attempts_of(out.headers) == attempt
        assert Reason.of(found(buried(record, code))).code == code
        record = found(out)


@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), max_size=4), st.lists(st.booleans(), min_size=6))
def test_what_was_dealt_with_is_remembered_over_passes_and_holes(choices: list[list[bool]], holes: list[bool]) -> None:
    offsets = [offset for offset in range(6) if not holes[offset]]
    done, dealt = Done(), set[int]()
    for choice in choices:
        through = _Pass(done)
        for offset in offsets:
            through.step(offset, offset in done or choice[offset])
            dealt |= {offset} if choice[offset] else set()
        after = through.after()
        done = Done.parse(after.below, after.text())
        assert {offset for offset in offsets if offset in done} == dealt


def test_a_pass_that_breaks_off_forgets_nothing() -> None:
    through = _Pass(Done.parse(2, "5-6,9-9"))
    through.step(2, True)
    assert (through.after().below, through.after().text()) == (3, "5-6,9-9")


def test_metadata_that_is_not_ours_counts_as_none() -> None:
    assert Done.parse(4, "some text").ranges == []
    assert Done.parse(-1, "").below == 0


def test_every_code_is_documented_with_its_meaning() -> None:
    page = (Path(__file__).parents[3] / "docs/contract.md").read_text()
    for code, meaning in MEANING.items():
        assert f"| `{code}` | {meaning} |" in page
    assert set(MEANING) == set(Code)
