"""Why this ad, in a few words that may be shown to who sees it: what the line item asked for and found.

It says the line item's words, never what the person or the page is beyond them: of a list of countries, the list.

>>> wanted = And((In.of("country", "us", "ca"), Not(In.of("genre", "horror"))))
>>> matched(wanted, Opportunity(now_ms=0, words={"country": ("US",)}))
('country is one of ca, us', 'genre is not horror')
"""

from collections.abc import Iterable

from ranking.ads.campaigns import Creative
from ranking.ads.predicates import (
    ANY_LEAST,
    ANY_MOST,
    KEY_VALUE,
    And,
    Between,
    DayPart,
    Domain,
    In,
    Known,
    Leaf,
    Near,
    Not,
    Opportunity,
    Or,
    Predicate,
    Prefix,
    Saw,
    met,
)  # fmt: skip

MOST_LEAVES, MOST_WORDS = 16, 5
"""So many leaves are told at most, and so many words of one."""
_UNITS = (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1))
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def matched(targeting: Predicate, asked: Opportunity) -> tuple[str, ...]:
    """What a line item asked for and found, for `AdDecision.matched`; empty where it asks for nothing.

    A leaf that is to be false counts where it is, as the line item means it. Leaves told twice are told once.
    """
    told = dict.fromkeys(said(leaf, wanted=wanted) for leaf, wanted in met(targeting, asked))
    return tuple(told)[:MOST_LEAVES]


def certain(targeting: Predicate) -> tuple[str, ...] | None:
    """`matched` of whoever it is for, where that is the same for all of them: without an OR; else None.

    >>> certain(And((In.of("country", "us"), Not(In.of("genre", "horror")))))
    ('country is us', 'genre is not horror')
    """
    told: dict[str, None] = {}
    for part in targeting.of if isinstance(targeting, And) else (targeting,):
        match part:
            case And():
                inner = certain(part)
                if inner is None:
                    return None
                told |= dict.fromkeys(inner)
            case Or():
                return None
            case Not(leaf):
                if isinstance(leaf, And | Or | Not):
                    return None
                told[said(leaf, wanted=False)] = None
            case _:
                told[said(part)] = None
    return tuple(told)[:MOST_LEAVES]


def transparency(creative: Creative) -> dict[str, object]:
    """What the Digital Services Act has told, as far as it is said: on whose behalf, who paid, by which parameters."""
    told = {"behalf": creative.behalf, "paid": creative.paid, "transparency": creative.transparency}
    return {name: value for name, value in told.items() if value}


def said(leaf: Leaf, *, wanted: bool = True) -> str:
    """A leaf in words, or its opposite.

    >>> said(Between("content_rating", ANY_LEAST, 16)), said(Saw("item", "m1", 7 * 86_400, 1), wanted=False)
    ('content_rating is at most 16', 'not: took item m1 in the last 7 days')
    """
    match leaf:
        case In(attribute, words):
            return f"{_name(attribute)} is {'' if wanted else 'not '}{_one_of(sorted(words))}"
        case Prefix(attribute, prefix):
            return f"{_name(attribute)} {'begins' if wanted else 'does not begin'} with {prefix}"
        case Domain(attribute, domain):
            return f"{_name(attribute)} is {'' if wanted else 'not '}{domain} or below it"
        case Between(attribute, least, most):
            return f"{_name(attribute)} is {'' if wanted else 'not '}{_range(least, most)}"
        case Near(lat, lon, km):
            return f"{'' if wanted else 'not '}within {km:g} km of {lat:g}, {lon:g}"
        case DayPart(hours):
            return f"{'' if wanted else 'not '}{_hours(hours)}"
        case Saw(kind, name, within_s):
            return f"{'' if wanted else 'not: '}took {kind} {name} in the last {_span(within_s)}"
        case Known(attribute):
            return f"{_name(attribute)} is {'' if wanted else 'not '}known"


def _name(attribute: str) -> str:
    return attribute.removeprefix(KEY_VALUE)


def _one_of(words: list[str]) -> str:
    more = f" and {len(words) - MOST_WORDS} more" if len(words) > MOST_WORDS else ""
    return ("one of " if len(words) > 1 else "") + ", ".join(words[:MOST_WORDS]) + more


def _range(least: int, most: int) -> str:
    if least == most:
        return str(least)
    if least == ANY_LEAST:
        return f"at most {most}"
    return f"at least {least}" if most == ANY_MOST else f"from {least} to {most}"


def _span(seconds: int) -> str:
    unit, size = next((unit, size) for unit, size in _UNITS if seconds % size == 0)
    return f"{seconds // size} {unit}{'' if seconds == size else 's'}"


def _hours(hours: int) -> str:
    """Hours of the week as days with the same hours: `Sat, Sun 18-24`."""
    days = [[hour for hour in range(24) if hours >> (day * 24 + hour) & 1] for day in range(7)]
    told: dict[str, list[str]] = {}
    for name, day in zip(_DAYS, days, strict=True):
        if day:
            told.setdefault(", ".join(_stretches(day)), []).append(name)
    return "; ".join(f"{', '.join(names)} {hours_}" for hours_, names in told.items()) or "at no hour"


def _stretches(hours: list[int]) -> Iterable[str]:
    begin = before = hours[0]
    for hour in (*hours[1:], 99):
        if hour != before + 1:
            yield f"{begin}-{before + 1}"
            begin = hour
        before = hour
