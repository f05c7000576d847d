"""A batch of behaviour as columns: what a stage takes instead of records; and the one table of what actions say.

Actions are codes of the table `Action`, items are 40-bit ids (`embeddings.ids`), users are indices into the batch's own
list of distinct users, so that nothing on the hot path touches a Python object per event.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray


class Says(IntFlag):
    """What an action can say of its item: the columns of the table that `Action` is."""

    nothing = 0
    touched = 1
    """The item goes into the history; whatever the person was shown of it is answered."""
    wanted = 2
    """The person took the item: it is counted as popular, is told to the learner, and says something of their taste."""
    praise = 4
    """To the ranker the item is one that the person liked."""
    blame = 8
    """To the ranker the item is one that the person disliked."""
    like = 16
    """Counted among the item's likes."""
    dislike = 32
    """Counted among its dislikes."""
    shown = 64
    """The item was before the person's eyes: an impression, which others may answer."""
    engaged = 256
    """Answers an impression: the person went for what was shown."""
    completed = 512
    """Answers an impression: and went through to the end."""
    goes_on = 1024
    """Belongs to what was begun: in the same sitting it is no take of its own, and a dislike stays one."""
    takes_back = 2048
    """What was said of the item is not said any more: the like, or that it is on the list."""
    refused = 4096
    """The item is not offered while the history says so, not even where what was seen may be."""

    taken = touched | wanted
    loved = taken | praise | like
    hated = touched | blame | dislike


class Action(IntEnum):
    """What a person did, and what it says.

    Codes 1-15 act on an item and fit 4 bits, from 16 on a place of a slate, from 23 on an ad that was decided for: they
    say nothing of an item, so that history, taste, fatigue and an item's counters never see an ad's.
    """

    says: Says

    def __new__(cls, code: int, says: Says = Says.nothing) -> Self:
        """A row of the table."""
        action = int.__new__(cls, code)
        action._value_, action.says = code, says
        return action

    unknown = 0
    view = 1, Says.taken
    play = 2, Says.taken | Says.engaged
    progress = 3, Says.taken | Says.goes_on
    complete = 4, Says.taken | Says.praise | Says.engaged | Says.completed | Says.goes_on
    skip = 5, Says.hated
    like = 6, Says.loved | Says.engaged
    dislike = 7, Says.hated | Says.refused
    unlike = 8, Says.takes_back
    add = 9, Says.loved | Says.engaged
    remove = 10, Says.takes_back
    share = 11, Says.loved
    purchase = 12, Says.loved | Says.engaged
    hide = 13, Says.hated | Says.refused
    impression = 16, Says.shown
    viewable = 17
    click = 18, Says.engaged
    conversion = 19
    first_quartile = 20
    midpoint = 21
    third_quartile = 22
    ad_complete = 23
    ad_impression = 24
    ad_click = 25
    ad_viewable = 26
    ad_conversion = 27
    ad_first_quartile = 28
    ad_midpoint = 29
    ad_third_quartile = 30


#: Which action an event of an ad is that names what was decided, by the one that it would be without.
AD_FORMS: Mapping[Action, Action] = {
    Action[action.name.removeprefix("ad_")]: action for action in Action if action.name.startswith("ad_")
}


def actions_that(say: Says) -> NDArray[np.bool_]:
    """One flag per byte, set where it is the code of an action that says one of these."""
    flag_A = np.zeros(256, np.bool_)
    flag_A[[action for action in Action if action.says & say]] = True
    return flag_A


#: By action code: does its item go into the history? Did the person want it?
TOUCHES, TAKES = actions_that(Says.touched), actions_that(Says.wanted)
#: By action code: is its item not to be offered again?
REFUSES = actions_that(Says.refused)
#: By action code: is it of an ad?
OF_ADS = np.isin(np.arange(256), list(AD_FORMS.values()))
#: By action code: 1 praise, -1 blame, 0 neither.
APPEAL = actions_that(Says.praise).astype(np.int8) - actions_that(Says.blame).astype(np.int8)


class Fate(IntEnum):
    """What became of a consumed record; every record has exactly one."""

    applied = 0
    replayed = 1
    duplicate = 2
    late = 3
    unconsented = 4
    erased = 5
    rate_limited = 6
    unknown_type = 7
    misrouted = 8
    dead_lettered = 9


class Source(NamedTuple):
    """An input partition; what watermarks, fences and totals are kept for."""

    topic: str
    partition: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EventBatch:
    """B readable events of U users, in offset order inside each source.

    `sources` lists the distinct input partitions of the batch; `source_B` indexes it. `time_s_B` is event time in
    whole epoch seconds (clamped where it was ahead). `dedupe_B` is a 32-bit hash of `ce_source` + `ce_id`, 0 = none.
    `consent_B` holds consent bits (`CONSENT_*`). `refused_B` is `Fate.applied`, or why a row must not be applied.
    """

    user_ids: tuple[str, ...]
    sources: tuple[Source, ...]
    user_B: NDArray[np.int32]
    item_B: NDArray[np.uint64]
    action_B: NDArray[np.uint8]
    value_B: NDArray[np.float32]
    time_s_B: NDArray[np.int64]
    source_B: NDArray[np.int32]
    offset_B: NDArray[np.int64]
    dedupe_B: NDArray[np.uint32]
    consent_B: NDArray[np.uint8]
    refused_B: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.user_B)


#: Consent bits: may the profile be stored, updated by this event, used for content, used for ads?
CONSENT_STORE, CONSENT_PROFILE, CONSENT_CONTENT, CONSENT_ADS = 1, 2, 4, 8
CONSENT_ALL = CONSENT_STORE | CONSENT_PROFILE | CONSENT_CONTENT | CONSENT_ADS
