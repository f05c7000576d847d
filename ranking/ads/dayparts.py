"""The hour of the week on somebody's clock: at an offset that a request tells, or in a zone with its clock changes.

>>> hour_of_week(1_774_746_000_000, "Europe/Berlin"), hour_of_week(1_774_746_000_000 - 1, "Europe/Berlin")
(147, 145)
"""

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
from numpy.typing import NDArray

HOURS = 168
_MINUTES = HOURS * 60
_MONDAY = 3 * 24 * 60
"""The epoch began on a Thursday."""
_DAY_MINUTES = 1_440
_QUARTER_MS = 900_000
"""One answer serves each: zones change their clocks at quarters of an hour of UTC. Not in Newfoundland before 2012, nor
at one station in Antarctica; there the minute of the change itself may be of the old hour."""
_LAST_QUARTER = 253_402_300_799_999 // _QUARTER_MS


def local_hour(now_ms: int, utcoffset: int | None) -> int:
    """Hour of the week, 0 to 167, `utcoffset` minutes from UTC; -1 without one, or with one of more than a day.

    >>> local_hour(0, 0), local_hour(0, -330), local_hour(0, None)
    (72, 66, -1)
    """
    if utcoffset is None or abs(utcoffset) > _DAY_MINUTES:
        return -1
    return (now_ms // 60_000 + utcoffset + _MONDAY) % _MINUTES // 60


def hour_of_week(now_ms: int, zone: str) -> int:
    """Hour of the week, 0 to 167, on a zone's clock; in spring one is left out there, in autumn one comes twice.

    Raises:
        ZoneInfoNotFoundError: Line items are refused before they name such a zone, so no message is concerned.
    """
    return local_hour(now_ms, _offset(zone, now_ms // _QUARTER_MS))


def zone_hours(now_ms_P: NDArray[np.int64], zones: tuple[str, ...]) -> NDArray[np.int16]:
    """`hour_of_week` of P moments in Z zones; a batch spans few quarters of an hour. Shape (P, Z)."""
    hour_PZ = np.empty((len(now_ms_P), len(zones)), np.int16)
    quarter_Q, which_P = np.unique(now_ms_P // _QUARTER_MS, return_inverse=True)
    for z, zone in enumerate(zones):
        offset_Q = np.array([_offset(zone, int(quarter)) for quarter in quarter_Q], np.int64)
        hour_PZ[:, z] = (now_ms_P // 60_000 + offset_Q[which_P] + _MONDAY) % _MINUTES // 60
    return hour_PZ


def offset_min(now_ms: int, zone: str) -> int:
    """How many minutes a zone's clock is ahead of UTC at a moment.

    >>> offset_min(1_774_746_000_000, "Europe/Berlin"), offset_min(1_774_746_000_000 - 1, "Europe/Berlin")
    (120, 60)

    Raises:
        ZoneInfoNotFoundError: as `hour_of_week`.
    """
    return _offset(zone, now_ms // _QUARTER_MS)


def local_day(now_ms: int, zone: str) -> str:
    """The date on a zone's clock.

    >>> local_day(0, "UTC"), local_day(0, "America/New_York")
    ('1970-01-01', '1969-12-31')

    Raises:
        ZoneInfoNotFoundError: as `hour_of_week`.
    """
    minutes = now_ms // 60_000 + offset_min(now_ms, zone)
    return (date(1970, 1, 1) + timedelta(days=minutes // _DAY_MINUTES)).isoformat()


def require_zone(zone: str) -> None:
    """Pass where a zone is in the time-zone database.

    Raises:
        ValueError: It is not, or the name is none. Refuse the record that names it.
    """
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, OSError, ValueError):
        raise ValueError(zone) from None


@lru_cache(maxsize=100_000)
def _offset(zone: str, quarter: int) -> int:
    quarter = min(max(quarter, 0), _LAST_QUARTER)
    offset = datetime.fromtimestamp(quarter * (_QUARTER_MS // 1000), UTC).astimezone(ZoneInfo(zone)).utcoffset()
    return int(offset.total_seconds()) // 60 if offset is not None else 0
