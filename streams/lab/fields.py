"""The one checked conversion of a log's fields: what people write for an id, a rating, a time, or a refusal.

>>> convert("ann", 7, "4.5", "2026-01-01T00:00:00Z")
('ann', '7', 4.5, 1767225600000, 'calendar times')
>>> convert("ann", "m", None, 1767225600)
('ann', 'm', 0.0, 1767225600000, 'seconds')
"""

import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from embeddings.events import Action, Says
from streams.contract.fields import LAST_MS
from streams.contract.serialisers import unfit

#: Longest id, in characters, and largest rating, as the contract has them.
LONGEST, LARGEST = 512, 3e38

_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_CUT = re.compile(r"([0-9]\.?[0-9]*)[eE]\+?([0-9]+)")
_COMPACT = re.compile(r"(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?:(?:[01]\d|2[0-3])(?:[0-5]\d){1,2})?")
#: How languages and databases print that there is no value.
_NOTHINGS = frozenset({"None", "NULL", "null", "nil", "NaN", "nan", "undefined", "\\N", "<NA>", "<null>"})
#: A number below the limit is in this unit, so many of which are a second: each reaches from 1973 to 5138.
_UNITS = (
    (1e11, "seconds", 1),
    (1e14, "milliseconds", 10**3),
    (1e17, "microseconds", 10**6),
    (1e20, "nanoseconds", 10**9),
)
_CALENDAR, _ISO = "calendar times", "2026-01-31T12:00:00Z"
#: The units of time, and "" where there is no time.
UNITS = ("", *(name for _, name, _ in _UNITS), _CALENDAR)
#: The types of events that take their item: every row of a log is read as one.
_TAKEN = tuple(action.name for action in Action if action.says & Says.wanted)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
_NUMBERS = ("$numberInt", "$numberLong", "$numberDouble", "$numberDecimal")


class Unusable(ValueError):
    """A field is not what is wanted; the message has its name, its value and what is wanted."""


def convert(user: Any, item: Any, rating: Any, time: Any) -> tuple[str, str, float, int, str]:
    """User, item, rating (0: none), time in epoch milliseconds and the unit it was written in ("": there is none).

    Args:
        user: Text or a whole number; MongoDB's extended JSON is understood, here and below.
        item: The same.
        rating: A finite number, as a number or text; none where it is null or empty.
        time: Seconds to nanoseconds since 1970, told apart by magnitude, or ISO 8601, UTC where it names no zone.

    Raises:
        Unusable: one of them is something else.
    """
    return _id("user_id", user), _id("item_id", item), _rating(rating), *_time(time)


def taken(row: Mapping[str, Any]) -> None:
    """Make sure that a row, which reads as something taken, says nothing else where it has an event's own fields.

    Raises:
        Unusable: its `type` is no action or one that takes nothing, or its `value` is no number.
    """
    kind, value = row.get("type"), row.get("value")
    if kind is not None and kind not in _TAKEN:
        raise Unusable(f"type is {shown(kind)}; one of {', '.join(_TAKEN)} is wanted, or no type")
    if value is not None and ((number := _number(value)) is None or not abs(number) <= LARGEST):
        raise Unusable(f"value is {shown(value)}; a finite number is wanted, or nothing")


def shown(value: Any) -> str:
    """A value for a message: on one line, and not all of it where it is long."""
    if value is None:
        return "missing"
    kind = "an object " if isinstance(value, dict) else "an array " if isinstance(value, list) else ""
    text = repr(value)
    return kind + (text if len(text) <= 60 else f"{text[:57]}...")


def _id(field: str, value: Any) -> str:
    plain = _unwrapped(value, ("$oid", "$uuid", "$numberInt", "$numberLong"))
    if isinstance(plain, bool) or not isinstance(plain, str | int):
        raise Unusable(f"{field} is {shown(value)}; text or a whole number is wanted")
    text = str(plain)
    if wrong := _wrong_id(text):
        raise Unusable(f"{field} is {shown(text)}, {wrong}")
    return text


@lru_cache(1 << 16)
def _wrong_id(text: str) -> str | None:
    if not text.strip():
        return "which is empty; every event needs one"
    if len(text) > LONGEST:
        return f"which has {len(text)} characters; at most {LONGEST} are wanted"
    if text in _NOTHINGS:
        return "as a missing value is printed; all without an id would become one"
    if _cut(text):
        return "as a spreadsheet shortens long numbers; several would become one"
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return "which holds half a character (a lone surrogate); whole ones are wanted"
    odd = unfit(text)
    return f"which is {odd}; a plain id is wanted" if odd else None


def _rating(value: Any) -> float:
    if value is None or value == "":
        return 0.0
    number = _number(value)
    if number is None or not abs(number) <= LARGEST:
        raise Unusable(f"rating is {shown(value)}; a finite number is wanted, or nothing")
    return float(number)


def _time(value: Any) -> tuple[int, str]:
    if value is None or value == "":
        return 0, ""
    moment = _dated(value["$date"]) if isinstance(value, dict) and value.keys() == {"$date"} else _epoch_or_date(value)
    if moment is None:
        raise Unusable(
            f"timestamp is {shown(value)}; seconds to nanoseconds since 1970, or ISO 8601 as {_ISO}, is wanted"
        )
    if not 0 <= moment[0] <= LAST_MS:
        raise Unusable(f"timestamp is {shown(value)}, {'before 1970' if moment[0] < 0 else 'after the year 9999'}")
    return moment


def _dated(value: Any) -> tuple[int, str] | None:
    """What MongoDB's `$date` holds: ISO 8601 or milliseconds."""
    number = _number(value)
    return _calendar(value) if number is None else (int(number), _CALENDAR)


def _epoch_or_date(value: Any) -> tuple[int, str] | None:
    number = _number(value)
    if number is None:
        return _calendar(value)
    written = str(value).strip()
    if _COMPACT.fullmatch(written):
        raise Unusable(f"timestamp is {shown(value)}, which looks like a date; write it as {_ISO}")
    if isinstance(value, str) and _cut(written):
        raise Unusable(f"timestamp is {shown(value)}, as a spreadsheet shortens numbers; all its digits are wanted")
    for limit, unit, per_second in _UNITS:
        if abs(number) < limit:
            return int(number * 1_000 // per_second), unit
    return None


def _calendar(value: Any) -> tuple[int, str] | None:
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value.strip().removesuffix(" UTC"))
    except ValueError:
        return None
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH) // _MS, _CALENDAR


def _number(value: Any) -> int | float | None:
    """A finite number, exact where it is whole; None for anything else."""
    plain = _unwrapped(value, _NUMBERS)
    if isinstance(plain, str):
        plain = plain.strip()
        if not _NUMBER.fullmatch(plain) or len(plain) > 100:
            return None
        plain = int(plain) if plain.isdigit() else float(plain)
    if isinstance(plain, bool) or not isinstance(plain, int | float):
        return None
    return plain if isinstance(plain, int) or math.isfinite(plain) else None


def _unwrapped(value: Any, names: Iterable[str]) -> Any:
    """What is in one of MongoDB's objects with one member; anything else as it is."""
    if isinstance(value, dict) and len(value) == 1 and (name := next(iter(value))) in names:
        return value[name]
    return value


def _cut(text: str) -> bool:
    """Is it a number in scientific notation that lacks digits?"""
    found = _CUT.fullmatch(text)
    return found is not None and len(found[1].replace(".", "")) <= int(found[2])
