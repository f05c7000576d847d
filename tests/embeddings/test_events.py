import numpy as np
import pytest

from embeddings.events import AD_FORMS, APPEAL, OF_ADS, TAKES, TOUCHES, Action, Says, actions_that

LEFT_ALONE = ["unknown", "unlike", "remove"]
PRAISE = ["complete", "like", "add", "share", "purchase"]
BLAME = ["skip", "dislike", "hide"]
TAKING = ["view", "play", "progress", *PRAISE]
ENGAGING = ["click", "play", "complete", "like", "add", "purchase"]


def named(flag_A: np.ndarray) -> set[str]:
    return {Action(code).name for code in np.flatnonzero(flag_A).tolist()}


@pytest.mark.parametrize(
    ("flag_A", "names"),
    [
        (TOUCHES, [action.name for action in Action if action < 16 and action.name not in LEFT_ALONE]),
        (TAKES, TAKING),
        (APPEAL > 0, PRAISE),
        (APPEAL < 0, BLAME),
        (actions_that(Says.like), ["like", "add", "purchase", "share"]),
        (actions_that(Says.dislike), ["dislike", "hide", "skip"]),
        (actions_that(Says.shown), ["impression"]),
        (actions_that(Says.engaged), ENGAGING),
        (actions_that(Says.completed), ["complete"]),
    ],
    ids=["touch", "take", "praise", "blame", "like", "dislike", "shown", "engage", "complete"],
)
def test_every_action_says_what_it_should(flag_A: np.ndarray, names: list[str]) -> None:
    assert named(flag_A) == set(names)


def test_an_action_is_its_code() -> None:
    assert Action(6) is Action.like
    assert [int(action) for action in Action] == [*range(14), *range(16, 31)]


def test_only_what_acts_on_an_item_goes_into_a_history() -> None:
    assert TOUCHES[:16].sum() == TOUCHES.sum()
    assert not (TAKES & ~TOUCHES).any()


def test_what_is_told_of_an_ad_says_nothing_of_an_item() -> None:
    assert {action.name: of_ad.name for action, of_ad in AD_FORMS.items()} == {
        name: f"ad_{name}"
        for name in [
            *("complete", "impression", "click", "viewable", "conversion"),
            *("first_quartile", "midpoint", "third_quartile"),
        ]
    }
    assert {of_ad.says for of_ad in AD_FORMS.values()} == {Says.nothing}
    assert named(OF_ADS) == {of_ad.name for of_ad in AD_FORMS.values()}
