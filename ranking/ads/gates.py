"""Gates: what consent, age and good taste let an ad decision do. All fail closed: what nobody can judge is refused.

>>> gate(ads=True, store=True, coppa=True)
Gate(personal=False, counted=False, refused=0)
>>> audience(None, content=255), audience(None, content=None), audience(16, content=12, coppa=True)
(0, 254, 12)
"""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ranking.ads.campaigns import Creative
from ranking.ads.losses import Loss
from ranking.ads.selection import ANY_AGE, Fits
from ranking.jit import kernel

CHILD_AGE = 12
"""Nothing rated higher is shown where `coppa` says that a child looks: the law protects those under 13."""
UNREADABLE_AGE = 255
LOW, MEDIUM, HIGH = 0, 1, 2
"""How risky the surroundings are to an advertiser, by the age that they are rated for."""
_MEDIUM_FROM, _HIGH_FROM = 13, 17


class Gate(NamedTuple):
    """What may be done for one request.

    Attributes:
        personal: may the profile be read? Where not, the decision is the same for everybody in this context.
        counted: may anything be kept of the person? Where not, nothing with a cap is eligible.
        refused: a `Loss` where no ad may be shown at all, else 0.
    """

    personal: bool
    counted: bool
    refused: int = 0


def gate(
    *,
    ads: bool,
    store: bool,
    coppa: bool = False,
    lmt: bool = False,
    personalised: bool = True,
    children: bool = True,
) -> Gate:
    """What consent lets an ad decision do.

    Args:
        ads: purposes 2, 3 and 4 (or what stands for them): the ads profile may be made and used.
        store: purpose 1.
        coppa: a child is known or presumed to look.
        lmt: the device asks for limited tracking.
        personalised: the request wants it.
        children: does the house show ads, of context alone, where `coppa` is set?
    """
    store &= not coppa
    personal = ads and store and not lmt and personalised
    return Gate(personal, store, Loss.no_consent if coppa and not children else 0)


def audience(limit: int | None, *, content: int | None, coppa: bool = False) -> int:
    """The highest rating, in years, that an ad may have: `selection.Slot.age_limit`.

    Args:
        limit: the parental limit, None where there is none.
        content: the rating of what the slot stands in, `UNREADABLE_AGE` where nobody can read it (then only ads for
            all ages fit), None where it says none.
        coppa: see `gate`.
    """
    ages = [ANY_AGE if limit is None else limit, CHILD_AGE if coppa else ANY_AGE]
    if content is not None:
        ages.append(0 if content == UNREADABLE_AGE else content)
    return max(min(*ages), 0)


#: Kinds of ads that a house must allow by name: their categories in IAB's content taxonomy 1.0 (`cattax` 1) and ad
#: product taxonomy 1.0 (3). A category stands for what lies below it.
SENSITIVE: Mapping[str, tuple[str, ...]] = {
    "adult": ("1:IAB25-3", "1:IAB7-39"),
    "alcohol": ("1:IAB8-5", "1:IAB8-18", "3:650"),
    "astrology": ("1:IAB15-1", "1:IAB15-5", "3:717"),
    "dating": ("1:IAB14-1",),
    "ethnicity": ("1:IAB14-8",),
    "gambling": ("1:IAB9-7",),
    "health": ("1:IAB7", "3:13", "3:696", "3:768"),
    "illegal": ("1:IAB26", "1:IAB25-2", "1:IAB25-4", "1:IAB25-5"),
    "lending": ("1:IAB13-2", "3:643"),
    "military": ("1:IAB4-10", "3:756"),
    "orientation": ("1:IAB14-3",),
    "politics": ("1:IAB11", "3:129"),
    "religion": ("1:IAB23", "3:592"),
    "tobacco": ("1:IAB9-9",),
    "uncategorised": ("1:IAB24",),
    "weapons": ("1:IAB17-18", "3:828"),
}
_NEVER = frozenset(("illegal",))
_JUDGED = frozenset((1, 3))
#: Of the ad product taxonomy, which numbers its categories, what lies below those named above.
_BELOW = {
    "3:696": range(697, 714),
}


def sensitivity(allowed: Iterable[str] = ()) -> Callable[[Creative], bool]:
    """What tells whether a creative is of a kind that is off.

    A category of a taxonomy that is not judged here is off as well, and on where `allowed` has `cattax:N`. So is a
    word of `categories` or a label that is the name of a kind, such as `gambling`.

    Args:
        allowed: names of `SENSITIVE`, single categories such as `1:IAB7-1` with what lies below them, or `cattax:N`.

    Raises:
        ValueError: a name that is none; the message says what is allowed.
    """
    allowed = frozenset(allowed)
    unknown = [word for word in allowed if word not in SENSITIVE and ":" not in word] + sorted(allowed & _NEVER)
    if unknown:
        names = ", ".join(sorted(SENSITIVE.keys() - _NEVER))
        raise ValueError(f"sensitive: {unknown[0]!r}; allowed: {names}, categories such as 1:IAB7-1, cattax:N")
    off = {category for kind, of in SENSITIVE.items() if kind not in allowed for category in of}
    kinds = SENSITIVE.keys() - allowed
    return lambda creative: _is_off(creative, off, kinds, allowed)


def _is_off(creative: Creative, off: set[str], kinds: Iterable[str], allowed: frozenset[str]) -> bool:
    if not frozenset(word.casefold() for word in creative.categories).isdisjoint(kinds):
        return True
    if creative.cat and creative.cattax not in _JUDGED and f"cattax:{creative.cattax}" not in allowed:
        return True
    for category in creative.cat:
        above = _above(f"{creative.cattax}:{category}")
        if not off.isdisjoint(above) and allowed.isdisjoint(above):
            return True
    return False


def _above(category: str) -> list[str]:
    """A category and those it lies in."""
    found = [category]
    if category.startswith("1:") and "-" in category:
        found.append(category.partition("-")[0])
    taxonomy, _, number = category.partition(":")
    if taxonomy == "3" and number.isdecimal():
        found += [top for top, below in _BELOW.items() if int(number) in below]
    return found


def without(fits: Fits, barred_N: NDArray[np.bool_], loss: Loss) -> Fits:
    """What is left of the creatives that fit when some are turned away.

    Args:
        fits: see `selection.fitting`.
        barred_N: by number of creative in the house; one that it does not reach is barred.
        loss: why; told of candidates that have none left.
    """
    code_M, start_M1 = fits.code_M.copy(), np.zeros_like(fits.start_M1)
    creative_N = np.empty_like(fits.creative_N)
    _without(fits.start_M1, fits.creative_N, barred_N, int(loss), code_M, start_M1, creative_N)
    return Fits(code_M, start_M1, creative_N[: start_M1[-1]])


@kernel
def _without(
    start_M1: NDArray[np.int64],
    creative_N: NDArray[np.int32],
    barred_N: NDArray[np.bool_],
    loss: int,
    code_M: NDArray[np.int16],
    kept_M1: NDArray[np.int64],
    kept_N: NDArray[np.int32],
) -> None:
    used = 0
    for m in range(len(code_M)):
        for n in range(start_M1[m], start_M1[m + 1]):
            c = creative_N[n]
            if c < len(barred_N) and not barred_N[c]:
                kept_N[used] = c
                used += 1
        if code_M[m] == 0 and used == kept_M1[m]:
            code_M[m] = loss
        kept_M1[m + 1] = used


def risk(age_N: NDArray[np.uint8], rated_N: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """How risky items are as neighbours, by the age they are rated for; unrated and unreadable: `MEDIUM`. Shape (N,).

    >>> risk(np.array([6, 16, 18, 0, 255], np.uint8), np.array([True, True, True, False, True])).tolist()
    [0, 1, 2, 1, 1]
    """
    by_age_N = (age_N >= _MEDIUM_FROM).astype(np.uint8) + (age_N >= _HIGH_FROM)
    return np.where(rated_N & (age_N != UNREADABLE_AGE), by_age_N, MEDIUM).astype(np.uint8)
