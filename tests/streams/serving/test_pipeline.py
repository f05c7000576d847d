from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embeddings.events import CONSENT_PROFILE, CONSENT_STORE, Fate
from embeddings.ids import item_id
from embeddings.items import TRENDING
from embeddings.memory import Shelf
from embeddings.stoprule import BadRun
from embeddings.store import PartitionMark
from streams.contract.consent import Judge
from streams.contract.parsing import Rules
from streams.contract.records import Slate
from streams.serving.pipeline import Answer
from tests.fuzzing import thorough
from tests.streams.builders import (
    DENIED,
    EVENTS,
    NOW_MS,
    Raw,
    Service,
    a_log,
    an_event,
    shown,
    slates_of,
    small,
    told,
)

USERS = [f"u{n}" for n in range(12)]
ITEMS = [f"i{n:03d}" for n in range(40)]
LOG = a_log(400, items=40)


def a_service(**groups: dict[str, object]) -> Service:
    """With 40 items in the catalogue and a snapshot of what 300 events taught."""
    service = Service(small(**groups))
    service.catalogue(*ITEMS, categories=("odd",), year=1999)
    service.live_through(LOG[:300])
    return service


def ids(answer: Answer) -> list[str]:
    return [slate.slate_id for slate in answer.slates]


def fates(answer: Answer) -> list[Fate]:
    return [Fate(fate) for fate in answer.fate_R.tolist()]


def content(slate: Slate) -> tuple[str, list[str]]:
    return slate.user_id, shown(slate)


def test_every_event_is_answered_with_unseen_items() -> None:
    service = a_service()
    answer = service.deliver(LOG[300:340])
    slates = slates_of(answer)
    assert [(s.partition, s.offset, s.user_id) for s in slates] == [
        (0, raw.offset, (raw.key or b"").decode()) for raw in LOG[300:340]
    ]
    assert all(len(slate.items) == 5 for slate in slates)
    assert {s.model_version for s in slates} == {"1"}
    assert all(s.ranked and s.trigger == "event" and s.degraded is None for s in slates)


def test_a_batch_delivered_twice_changes_nothing_and_answers_the_same() -> None:
    service = a_service()
    first = service.deliver(LOG[300:350])
    states, marks = service.states(*USERS), service.users.marks([EVENTS])
    again = service.deliver(LOG[300:350])
    assert set(fates(again)) == {Fate.replayed}
    assert again.told == []
    assert ids(again) == ids(first)
    assert (service.states(*USERS), service.users.marks([EVENTS])) == (states, marks)


def test_a_batch_that_was_told_but_not_stored_is_told_again_alike() -> None:
    service = a_service()
    first, again = service.respond(LOG[300:350]), service.respond(LOG[300:350])
    assert first.told == again.told
    assert [slate.value for slate in first.slates] == [slate.value for slate in again.slates]


def test_of_a_batch_half_applied_the_rest_is_applied_and_all_is_answered() -> None:
    service = a_service()
    service.deliver(LOG[300:320])
    answer = service.deliver(LOG[310:340])
    assert fates(answer) == [Fate.replayed] * 10 + [Fate.applied] * 20
    assert [o.first for o in told(answer)] == [320]
    assert len(answer.slates) == 30


def cut(log: Sequence[Raw], cuts: Sequence[int]) -> list[Sequence[Raw]]:
    ends = [0, *sorted(set(cuts)), len(log)]
    return [log[a:b] for a, b in pairwise(ends)]


@pytest.mark.slow
@given(st.lists(st.integers(1, 79), max_size=8), st.integers(0, 2**20))
@thorough(25)
def test_states_do_not_depend_on_how_the_log_was_cut(cuts: list[int], seed: int) -> None:
    log = a_log(80, users=3, seed=seed)
    whole, parts = Service(), Service()
    whole.deliver(log)
    for batch in cut(log, cuts):
        parts.deliver(batch)
    people = ["u0", "u1", "u2"]
    assert whole.states(*people) == parts.states(*people)
    assert whole.users.marks([EVENTS]) == parts.users.marks([EVENTS])


@pytest.mark.parametrize("size", [1, 7, 40])
def test_slates_do_not_depend_on_how_the_log_was_cut(size: int) -> None:
    """Under one model and the same counters; scores to 1e-5, so that equals may change places with nobody else."""
    log = LOG[300:360]
    whole = slates_of(a_service().deliver(log))
    service = a_service()
    parts = [s for at in range(0, len(log), size) for s in slates_of(service.deliver(log[at : at + size]))]
    assert [content(slate) for slate in parts] == [content(slate) for slate in whole]
    scores = [[[item.score for item in slate.items] for slate in each] for each in (parts, whole)]
    assert np.allclose(*scores, atol=1e-5)


def test_what_the_learner_is_told_does_not_depend_on_how_the_log_was_cut() -> None:
    def takes(answers: Iterable[Answer]) -> list[tuple[int, list[int]]]:
        return [
            (int(o.offset_R[row]), o.history_TH[t].tolist())
            for answer in answers
            for o in told(answer)
            for t, row in enumerate(o.take_T.tolist())
        ]

    whole, parts = Service(), Service()
    in_parts = takes(parts.deliver(LOG[at : at + 30]) for at in range(0, len(LOG), 30))
    assert takes([whole.deliver(LOG)]) == in_parts


def test_scores_do_not_depend_on_other_users_in_the_batch() -> None:
    alone, crowded = a_service(), a_service()
    mine = [raw for raw in LOG[300:400] if raw.key == b"u3"]
    (lonely,) = (slates_of(alone.deliver(mine))[-1:],)
    among = [slate for slate in slates_of(crowded.deliver(LOG[300:400])) if slate.user_id == "u3"][-1:]
    assert content(lonely[0]) == content(among[0])
    assert np.allclose([i.score for i in lonely[0].items], [i.score for i in among[0].items], atol=1e-5)


def test_candidates_do_not_depend_on_how_much_others_have_seen() -> None:
    """More items than candidates: how far is looked for somebody must not move with the rest of the batch."""
    service = Service(small(slates={"candidates": 10}))
    service.live_through(a_log(900, users=6, items=150))
    log = a_log(1000, users=6, items=150)[900:]
    newcomer = an_event(2_000, "new", "i000")
    (lonely,) = slates_of(service.respond([newcomer]))
    among = slates_of(service.respond([*log, newcomer]))[-1]
    assert content(among) == content(lonely)
    assert np.allclose([i.score for i in lonely.items], [i.score for i in among.items], atol=1e-5)


def test_only_the_last_event_of_each_user_is_answered_when_coalesced() -> None:
    service = a_service(slates={"per_event": "coalesced"})
    answer = service.deliver(LOG[300:340])
    last = {raw.key: raw.offset for raw in LOG[300:340]}
    assert [slate.trigger.offset for slate in answer.slates] == sorted(last.values())


def test_nobody_is_answered_unasked_when_only_requests_are() -> None:
    service = a_service(slates={"per_event": "requests"})
    answer = service.deliver(LOG[300:340])
    assert answer.slates == []
    assert len(told(answer)[0]) == 40


def test_rows_below_the_committed_offset_are_folded_without_an_answer() -> None:
    answer = a_service().deliver(LOG[300:340], committed=330)
    assert set(fates(answer)) == {Fate.applied}
    assert [slate.trigger.offset for slate in answer.slates] == list(range(330, 340))


def test_old_records_are_folded_without_an_answer() -> None:
    service = Service()
    service.catalogue(*ITEMS)
    age_ms = service.settings.slates.max_age_s * 1000
    old, young = (an_event(n, "ann", f"i{n:03d}", timestamp=int(NOW_MS - age_ms - 1 + 2 * n)) for n in range(2))
    answer = service.deliver([old, young])
    assert fates(answer) == [Fate.applied] * 2
    assert [slate.trigger.offset for slate in answer.slates] == [1]


def test_refused_late_and_repeated_events_are_not_answered() -> None:
    service = Service()
    service.catalogue(*ITEMS)
    hour = 3_600_000
    answer = service.deliver(
        [
            an_event(0, event_id="x"),
            an_event(1, item="b", event_id="x"),
            an_event(2, item="b", event_time=NOW_MS - 10 * hour),
            an_event(3, item="b", kind="teleport"),
            an_event(4, item="b", consent=DENIED),
            an_event(5, item="b", event_id="y"),
        ]
    )
    expected = [Fate.applied, Fate.duplicate, Fate.late, Fate.unknown_type, Fate.unconsented, Fate.applied]
    assert fates(answer) == expected
    assert [slate.trigger.offset for slate in answer.slates] == [0, 5]
    assert told(answer)[0].offset_R.tolist() == [0, 5]


def test_somebody_without_consent_leaves_no_trace() -> None:
    service = a_service()
    answer = service.deliver([an_event(300, "eve", "i001", consent=DENIED)])
    assert (answer.slates, answer.told) == ([], [])
    assert not [key for key in service.shelf.held if "eve" in key]
    assert service.users.marks([EVENTS])[EVENTS].totals[Fate.unconsented] == 1


def test_a_profile_that_may_not_choose_content_changes_no_slate() -> None:
    """Who allowed a profile, but not to choose by it, is offered what somebody unknown is offered."""
    service = a_service()
    service.recommender.rules = Rules(judge=Judge(CONSENT_STORE | CONSENT_PROFILE))
    known, stranger = (slates_of(service.respond([an_event(400, who, "i001")]))[0] for who in ("u1", "new"))
    assert shown(known) == shown(stranger)
    assert not any(name in item.source for item in known.items for name in ("vector", "neighbours"))


@pytest.mark.parametrize("batch", [1, 50])
def test_nothing_seen_is_offered(batch: int) -> None:
    service, taken = a_service(), {user: set[str]() for user in USERS}
    for raw in LOG[:300]:
        taken[(raw.key or b"").decode()].add(item_of(raw))
    for at in range(300, 400, batch):
        for raw, slate in zip(LOG[at : at + batch], slates_of(service.deliver(LOG[at : at + batch])), strict=True):
            taken[slate.user_id].add(item_of(raw))
            assert taken[slate.user_id].isdisjoint(shown(slate))


def item_of(raw: Raw) -> str:
    from streams.contract.records import decode_event

    return decode_event(raw.value or b"").item_id or ""


def test_what_left_the_history_is_still_not_offered() -> None:
    service = Service(small(slates={"size": 20, "candidates": 60}))
    names = [f"i{n:03d}" for n in range(70)]
    service.catalogue(*names)
    answer = service.deliver([an_event(n, "ann", name) for n, name in enumerate(names[:60])])
    assert set(shown(slates_of(answer)[-1])) == set(names[60:])
    (after,) = slates_of(service.deliver([an_event(60, "ann", names[60])]))
    assert set(shown(after)) == set(names[61:])


def test_removed_and_unavailable_items_are_not_offered() -> None:
    service = a_service()
    before = {item for slate in slates_of(service.deliver(LOG[300:340])) for item in shown(slate)}
    gone, later, over = sorted(before)[:3]
    now_s = NOW_MS // 1000
    service.serving.catalogue([], [gone])
    service.catalogue(later, available_from_s=now_s + 60)
    service.catalogue(over, available_until_s=now_s)
    after = {item for slate in slates_of(service.deliver(LOG[340:380])) for item in shown(slate)}
    assert not after & {gone, later, over}
    service.now_ms += 60_000
    assert later in {item for slate in slates_of(service.deliver(LOG[380:400])) for item in shown(slate)}


def test_somebody_new_gets_what_is_popular() -> None:
    service = a_service()
    (slate,) = slates_of(service.deliver([an_event(300, "new", "never-heard-of", "view")]))
    counts = service.learner.counters.of(np.arange(len(service.learner.ids), dtype=np.int32))
    popular = counts.item_N[np.argsort(-counts.popularity_N4[:, TRENDING])][:20]
    assert len(slate.items) == 5
    assert {item_id(name) for name in shown(slate)} <= set(popular.tolist())


def test_before_anything_is_known_the_slate_is_empty() -> None:
    (slate,) = slates_of(Service().deliver([an_event(0)]))
    assert (slate.items, slate.ranked, slate.model_version) == ((), False, "0")


def test_a_batch_of_garbage_moves_the_mark_and_answers_nobody() -> None:
    service = Service()
    answer = service.deliver([Raw(0, b"{"), Raw(1, None), Raw(2, b"[]", b"x")])
    assert fates(answer) == [Fate.dead_lettered] * 3
    assert [letter.offset for letter in answer.decoded.dead] == [0, 1, 2]
    assert service.users.marks([EVENTS])[EVENTS] == PartitionMark(2, (*[0] * 9, 3), BadRun(3, 3, "malformed"))


def test_every_record_is_counted_once_whatever_comes_again() -> None:
    service = Service()
    log = [*LOG[:40], Raw(40, b"garbage"), an_event(41, consent=DENIED), an_event(42, kind="dance"), an_event(43)]
    for first, last in [(0, 20), (10, 41), (0, 44), (30, 44)]:
        service.deliver(log[first:last])
    totals = service.users.marks([EVENTS])[EVENTS].totals
    assert sum(totals) == 44
    assert [totals[fate] for fate in (Fate.dead_lettered, Fate.unconsented, Fate.unknown_type)] == [1, 1, 1]


def test_the_latest_slate_is_kept_until_it_expires() -> None:
    service = a_service()
    service.shelf.clock = lambda: service.now_ms / 1000
    slate = slates_of(service.deliver([an_event(300, "u1", "i030"), an_event(301, "u1", "i031")]))[-1]
    kept = service.users.latest_slate("u1")
    assert kept is not None
    assert b'"offset":301' in kept
    assert slate.expires_at == NOW_MS + service.settings.slates.ttl_s * 1000
    service.now_ms = slate.expires_at
    assert service.users.latest_slate("u1") is None


def test_a_taste_is_stored_with_the_version_it_was_made_of() -> None:
    service = a_service()
    service.deliver([an_event(300, "u1", "i001")])
    assert service.users.read(["u1"]).tastes.version_U.tolist() == [1]


def test_a_slate_says_when_each_stage_was_passed() -> None:
    service = a_service()
    service.recommender.now_ms = iter(range(NOW_MS, NOW_MS + 1_000)).__next__
    (slate,) = slates_of(service.respond([an_event(300, "u1", "i001", event_time=NOW_MS)]))
    stamps = [slate.received_ms, slate.decoded_ms, slate.folded_ms, slate.retrieved_ms, slate.ranked_ms]
    assert slate.event_ms == NOW_MS
    assert stamps == sorted(stamps)
    assert NOW_MS <= stamps[0] < stamps[-1] < slate.published_ms


def test_a_slate_of_every_event_knows_nothing_of_the_next_one() -> None:
    """Told features may be those of the next event's moment; a published slate may not."""
    service, lone = a_service(), a_service()
    later = an_event(301, "u1", "i031", event_time=NOW_MS, context={"surface": "tv", "device": "set"})
    first = slates_of(service.respond([an_event(300, "u1", "i030"), later]))[0]
    (alone,) = slates_of(lone.respond([an_event(300, "u1", "i030")]))
    assert [item.score for item in first.items] == pytest.approx([item.score for item in alone.items], abs=1e-6)


def test_what_was_seen_is_known_as_long_as_its_owner_comes() -> None:
    now_s = [NOW_MS // 1000]
    service = Service(shelf=Shelf(lambda: now_s[0]))
    names = [f"i{n:03d}" for n in range(70)]
    service.catalogue(*names)
    service.deliver([an_event(n, "ann", name) for n, name in enumerate(names[:60])])
    for n in range(60, 70):  # once in two months, always the same item: nothing is seen anew
        now_s[0] += 60 * 86_400
        service.now_ms = now_s[0] * 1000
        service.users.claim([EVENTS])
        service.deliver([an_event(n, "ann", names[59], event_time=service.now_ms, timestamp=service.now_ms)])
    assert service.users.read(["ann"]).seen.count_U.tolist() == [10]
