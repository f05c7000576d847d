import numpy as np
import pytest

from embeddings.events import Action, Says
from embeddings.lessons import GOES_WITH, LESSON_2AA, SITTING_S, TEACHES, Lesson, after, lesson_of, lessons

ITEMS = [action for action in Action if 0 < action < 16]


def taught(events: list[tuple[int, Action]]) -> list[Lesson]:
    """What events of one item teach, each after those before: the entry is what they left."""
    out, held, held_s = [], Action.unknown, 0
    for time_s, action in events:
        done = np.array([7], np.uint64), np.array([action], np.uint8), np.array([time_s])
        before = np.array([[7, 0]], np.uint64), np.array([[held, 0]], np.uint8), np.array([[held_s, 0]])
        out.append(Lesson(int(lessons(done, before)[0][0])))
        if action.says & Says.touched:
            held, held_s = after(held, action), time_s
    return out


def test_a_film_of_two_hours_is_taken_once_however_often_its_player_reports() -> None:
    reports = [(10 * n, Action.progress) for n in range(1, 721)]
    assert sum(bool(lesson & Lesson.take) for lesson in taught([(1, Action.play), *reports])) == 1


def test_in_another_sitting_an_item_is_taken_again() -> None:
    twice = [(1, Action.play), (1 + SITTING_S, Action.play), (SITTING_S + 9, Action.play)]
    assert taught(twice) == [Lesson.take, Lesson.take, Lesson(0)]


def test_who_likes_twice_in_a_sitting_likes_once() -> None:
    assert taught([(1, Action.play), (2, Action.like), (3, Action.like)]) == [Lesson.take, Lesson.like, Lesson(0)]


def test_what_was_skipped_is_taken_by_who_plays_it_and_not_by_a_player_that_goes_on() -> None:
    assert taught([(1, Action.skip), (2, Action.progress), (3, Action.skip), (4, Action.play)])[1:] == [
        Lesson(0),
        Lesson(0),
        Lesson.take,
    ]


@pytest.mark.parametrize("action", ITEMS)
def test_only_a_like_can_be_taken_back_and_only_by_what_undoes_it(action: Action) -> None:
    undone = {held for held in ITEMS if lesson_of(action, held) & Lesson.like_back}
    assert undone == {Action.unlike: {Action.like}, Action.remove: {Action.add}}.get(action, set())


@pytest.mark.parametrize("action", [Action.play, Action.like, Action.progress, Action.complete, Action.share])
def test_who_comes_back_to_what_they_like_takes_the_like_along(action: Action) -> None:
    """Its entry has the time of the last event: that is what an unlike goes by."""
    assert taught([(1, Action.like), (1 + SITTING_S, action)])[1] == Lesson.take | Lesson.like | Lesson.like_back
    assert not taught([(1, Action.like), (2, action)])[1] & (Lesson.like | Lesson.like_back)


def test_what_comes_late_takes_nothing_back_that_was_said_since() -> None:
    assert taught([(9, Action.like), (8, Action.unlike)])[1] == Lesson(0)
    assert taught([(9, Action.like), (9, Action.unlike)])[1] == Lesson.like_back


def test_what_may_teach_is_what_teaches_in_some_case() -> None:
    assert np.array_equal(LESSON_2AA.any((0, 1)), TEACHES[:16])


def test_with_what_is_taken_goes_what_was_wanted() -> None:
    assert {Action(code).name for code in np.flatnonzero(~GOES_WITH[:14])} == {
        *("skip", "dislike", "hide"),
        *("unlike", "remove"),
    }
