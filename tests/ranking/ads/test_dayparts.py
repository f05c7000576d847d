"""Day-parts on people's own clocks and on zones' clocks, over the changes of these."""

from datetime import UTC, datetime

import numpy as np
import pytest

from ranking.ads.dayparts import hour_of_week, local_hour, zone_hours
from ranking.ads.predicates import DayPart, Opportunity, holds
from ranking.ads.targeting import Targeting
from ranking.ads.wire import parse

SUN = 6 * 24


def utc(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


@pytest.mark.parametrize(
    ("zone", "moments"),
    [
        # 02:00 to 03:00 does not exist on the last Sunday of March
        ("Europe/Berlin", {"2026-03-29T00:59:59.999": SUN + 1, "2026-03-29T01:00": SUN + 3}),
        # 02:00 to 03:00 comes twice on the last Sunday of October
        ("Europe/Berlin", {"2026-10-24T23:59": SUN + 1, "2026-10-25T00:00": SUN + 2, "2026-10-25T01:59": SUN + 2,
                           "2026-10-25T02:00": SUN + 3}),
        ("America/New_York", {"2026-03-08T06:59": SUN + 1, "2026-03-08T07:00": SUN + 3}),
        ("America/New_York", {"2026-11-01T05:59": SUN + 1, "2026-11-01T06:00": SUN + 1, "2026-11-01T07:00": SUN + 2}),
        # half an hour at once
        ("Australia/Lord_Howe", {"2026-04-04T14:59": SUN + 1,
                                 "2026-04-04T15:29": SUN + 1, "2026-04-04T15:30": SUN + 2}),
        ("Asia/Kathmandu", {"2026-07-01T18:14": 2 * 24 + 23, "2026-07-01T18:15": 3 * 24}),
    ],
)  # fmt: skip
def test_a_zone_changes_its_clock_where_it_does(zone: str, moments: dict[str, int]) -> None:
    now_ms_P = np.array([utc(moment) for moment in moments])
    assert [hour_of_week(int(now_ms), zone) for now_ms in now_ms_P] == list(moments.values())
    assert zone_hours(now_ms_P, ("UTC", zone))[:, 1].tolist() == list(moments.values())


def test_a_persons_own_offset_comes_first_unless_the_zone_is_fixed() -> None:
    evening = {"days": ["sun"], "from": 20, "until": 24}
    theirs = parse({"dayparts": [evening]}, zone="Europe/Berlin")
    ours = parse({"dayparts": [evening | {"zone": "Europe/Berlin"}]})
    index = Targeting()
    index.put(0, theirs)
    index.put(1, ours)
    answers = {
        ("2026-03-29T19:00", None): [True, True],  # 21:00 summer time in Berlin
        ("2026-03-29T19:00", 120): [True, True],
        ("2026-03-29T19:00", -240): [False, True],  # 15:00 in New York
        ("2026-03-30T00:30", -240): [True, False],
        ("2026-03-30T00:30", 9_999): [False, False],  # no offset at all
    }
    asked = [Opportunity(now_ms=utc(moment), utcoffset=offset) for moment, offset in answers]
    assert [[holds(theirs, one), holds(ours, one)] for one in asked] == list(answers.values())
    bits_P = index.snapshot().match(asked)[:, 0]
    assert [[bool(bits & 1), bool(bits & 2)] for bits in bits_P.tolist()] == list(answers.values())


@pytest.mark.parametrize(("moment", "shows"), [("2026-03-29T00:59", False), ("2026-03-29T01:00", False)])
def test_an_hour_that_spring_leaves_out_never_comes(moment: str, shows: bool) -> None:
    night = DayPart(1 << (SUN + 2), "Europe/Berlin", fixed=True)
    assert holds(night, Opportunity(now_ms=utc(moment))) is shows


def test_an_hour_that_autumn_repeats_comes_twice() -> None:
    night = DayPart(1 << (SUN + 2), "Europe/Berlin", fixed=True)
    quarters = range(utc("2026-10-24T22:00"), utc("2026-10-25T06:00"), 900_000)
    assert sum(holds(night, Opportunity(now_ms=now_ms)) for now_ms in quarters) == 8


def test_hours_past_midnight_belong_to_the_day_that_they_begin() -> None:
    late = parse({"dayparts": [{"days": ["sun"], "from": 23, "until": 2}]})
    assert isinstance(late, DayPart)
    assert [hour for hour in range(168) if late.hours >> hour & 1] == [0, 1, SUN + 23]


def test_an_offset_beyond_a_day_is_none() -> None:
    assert (local_hour(0, 1_440), local_hour(0, 1_441), local_hour(0, -1_441)) == (96, -1, -1)
