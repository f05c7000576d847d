"""What an action teaches, given what its person holds of the item: the table of actions, looked up by pairs of them.

An item counts once per person and sitting, however often and in how many ways it is touched there; what a person said
of an item stays until they say otherwise. A like that is held counts once, as of its entry's time: who comes back to
the item in another sitting takes the like along, so that whatever takes it back knows what it counts.

>>> lesson_of(Action.play, Action.unknown), lesson_of(Action.progress, Action.play)
(<Lesson.take: 1>, <Lesson: 0>)
>>> lesson_of(Action.like, Action.play), lesson_of(Action.unlike, Action.like)
(<Lesson.like: 2>, <Lesson.like_back: 8>)
>>> after(Action.like, Action.progress).name, after(Action.like, Action.unlike).name
('like', 'view')
"""

from enum import IntFlag
from itertools import product

import numpy as np
from numpy.typing import NDArray

from embeddings.events import TAKES, Action, EventBatch, Says, actions_that
from embeddings.jit import kernel

SITTING_S = 4 * 3_600 - 32
"""A sitting with an item is over when its person left it alone for so long.

Ages are told to the learner in steps of 64 seconds there: between two of them, both sides find the same.
"""
_OPINION = Says.like | Says.dislike
_TAKEN_BACK = {Action.unlike: Action.like, Action.remove: Action.add}
Entries = tuple[NDArray[np.uint64], NDArray[np.uint8], NDArray[np.int64]]


class Lesson(IntFlag):
    """What an event teaches beside being shown and clicked."""

    take = 1
    """The item is taken: it is popular, here and everywhere, and goes with what was held before."""
    like = 2
    dislike = 4
    like_back = 8
    """The like that was held is counted no more; with `like`, it is counted as of now."""


def after(held: Action, action: Action, same_sitting: bool = True) -> Action:
    """What an item's entry in the history says after an action; `Action.unknown` is no entry.

    A like outlasts plain takes, a dislike what goes on in the same sitting; a like taken back leaves that it was taken.
    What can be taken back outlasts praise that cannot.
    """
    if action.says & Says.takes_back:
        return Action.view if held is _TAKEN_BACK[action] else held
    if not action.says & Says.touched:
        return held
    back = _TAKEN_BACK.values()
    stays = held.says & Says.like and not action.says & _OPINION
    stays = stays or (held in back and action not in back and action.says & Says.like)
    stays = stays or (held.says & Says.dislike and action.says & Says.goes_on and same_sitting)
    return held if stays else action


def lesson_of(action: Action, held: Action, same_sitting: bool = True) -> Lesson:
    """What an action teaches where the item's entry says `held`; `Action.unknown` is no entry."""
    says, told = action.says, held.says if same_sitting else Says.nothing
    lesson = Lesson(0)
    if says & Says.wanted and not told & Says.wanted and not (told & Says.touched and says & Says.goes_on):
        lesson |= Lesson.take
    kept = held.says & after(held, action).says & Says.like
    if says & Says.like and not kept:
        lesson |= Lesson.like
    if kept and says & Says.touched and not same_sitting:
        lesson |= Lesson.like | Lesson.like_back
    if says & Says.dislike and not told & Says.dislike:
        lesson |= Lesson.dislike
    if after(held, action) is not held and says & Says.takes_back:
        lesson |= Lesson.like_back
    return lesson


_LIKE_BACK = int(Lesson.like_back)
#: `after` and `lesson_of` by same sitting, code held and code of the action.
AFTER_2AA, LESSON_2AA = np.zeros((2, 16, 16), np.uint8), np.zeros((2, 16, 16), np.uint8)
for _same, _held, _action in product((0, 1), list(Action)[:14], list(Action)[:14]):
    AFTER_2AA[_same, _held, _action] = after(_held, _action, bool(_same))
    LESSON_2AA[_same, _held, _action] = lesson_of(_action, _held, bool(_same))
#: By action code: may it teach something that depends on what was held?
TEACHES = actions_that(Says.wanted | _OPINION | Says.takes_back)
#: By action code: does what it put into a history go with what is taken later? Not known (0) is taken for a yes.
GOES_WITH = TAKES | (np.arange(256) == Action.unknown)


def lessons(
    done: Entries, held: Entries, at_T: NDArray[np.intp] | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.int16]]:
    """What T events teach, and where in the histories before them their items are, -1 where they are not.

    Args:
        done: items, actions and event times of the events. Shape (T,).
        held: those of histories. Shape (P, H).
        at_T: whose history is whose; None is one for each event, in their order.
    """
    return _lessons(*done, *held, np.arange(len(done[0])) if at_T is None else at_T, LESSON_2AA)


def shares(batch: EventBatch, length_s_B: NDArray[np.float32] | None) -> NDArray[np.uint8]:
    """How far each of B events says that its person got, in 255ths; 0 = says nothing.

    `progress` says seconds, or where the item's length is not known a share up to 1; who completes got to the end.
    """
    share_B = np.where(batch.action_B == Action.complete, np.float32(1), np.float32(0))
    r = np.flatnonzero(batch.action_B == Action.progress)
    value, length_s = batch.value_B[r], np.zeros(len(r)) if length_s_B is None else length_s_B[r]
    share_B[r] = np.where(length_s > 0, value / np.where(length_s > 0, length_s, 1), np.where(value <= 1, value, 0))
    share_B = np.clip(share_B, 0, 1)
    whole_B: NDArray[np.uint8] = np.maximum(np.rint(255 * share_B), share_B > 0).astype(np.uint8)
    return whole_B


@kernel
def _lessons(
    item_T: NDArray[np.uint64],
    action_T: NDArray[np.uint8],
    time_s_T: NDArray[np.int64],
    item_TH: NDArray[np.uint64],
    action_TH: NDArray[np.uint8],
    time_s_TH: NDArray[np.int64],
    at_T: NDArray[np.intp],
    lesson_2AA: NDArray[np.uint8],
) -> tuple[NDArray[np.uint8], NDArray[np.int16]]:
    lesson_T, held_T = np.zeros(len(item_T), np.uint8), np.full(len(item_T), -1, np.int16)
    for t in range(len(item_T)):
        at, held, same = at_T[t], 0, 0
        for h in range(item_TH.shape[1]):
            if item_TH[at, h] == item_T[t]:
                held_T[t], held = h, action_TH[at, h]
                same = int(time_s_T[t] - time_s_TH[at, h] < SITTING_S)
                break
        if action_T[t] < 16 and item_T[t] != 0:
            lesson_T[t] = lesson_2AA[same, held & 15, action_T[t]]
            if lesson_T[t] & _LIKE_BACK and time_s_T[t] < time_s_TH[at, held_T[t]]:
                lesson_T[t] = 0  # it comes late: what it took back was said again since
    return lesson_T, held_T
