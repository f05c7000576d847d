"""What is said of how line items stand, why they do not show, and why an ad was chosen."""

from typing import Any, NamedTuple

import pytest

from embeddings.spend import OWN, TOLD
from streams.commands.ad_explain import decided, explained, losses
from streams.commands.ad_report import REASONS, STEPS, curve, delivery, ecpm_micros, reported, resolved, top, why_not
from streams.commands.console import Failed
from streams.contract.ad_records import AdDecision, AdStats
from streams.contract.records import encode
from streams.settings import Settings
from tests.streams.adverts import LINE, a_decision, a_line
from tests.streams.builders import NOW_MS

STATS = AdStats(
    key=LINE, campaign_id="c", line_item_id="l", currency="EUR", impressions=200, clicks=5, spent_micros=600_000,
    indicator=0.8, funnel={"targeted": 500, "capped": 90, "outbid": 200, "paced": 7, "bid": 300},
    lost_to={"d/x": 150}, hours={"10": 100, "11": 100, "12": 180, "14": 340},
)  # fmt: skip


def test_rates_are_those_of_what_was_billable() -> None:
    said = reported(STATS)
    assert (said["ctr"], said["ecpm_micros"], said["indicator"]) == (0.025, 3_000_000, 0.8)
    assert (reported(AdStats())["ctr"], ecpm_micros(AdStats())) == (None, None)


def test_what_stops_it_most_comes_first() -> None:
    assert top(STATS, 2) == {"outbid": 200, "capped": 90}


def test_every_step_and_reason_is_counted_and_every_count_is_one() -> None:
    assert {*STEPS, *REASONS} <= {*TOLD, *OWN}
    assert set(TOLD) <= {*STEPS, *REASONS}


def test_delivery_is_red_behind_and_yellow_ahead() -> None:
    assert [str(delivery(one).style) for one in (0.89, 0.9, 1.1, 1.11)] == ["red", "green", "green", "yellow"]
    assert delivery(None).plain == ""


def test_hours_are_bars_also_those_in_which_nothing_was_spent() -> None:
    assert curve(STATS.hours) == "▁▄▁█"
    assert (curve({}), curve({"3": 5}), curve({"3": 5, "4": 5})) == ("", "", "▁")


def test_a_line_item_is_named_in_full_or_by_its_own_id_where_that_is_clear() -> None:
    assert resolved("c/l", {"c/l", "d/l"}) == "c/l"
    assert resolved("m", {"c/l", "c/m"}) == "c/m"
    with pytest.raises(Failed, match="one of c/l, d/l"):
        resolved("l", {"c/l", "d/l"})
    with pytest.raises(Failed, match="no line item x; there are: c/l"):
        resolved("x", {"c/l"})


def test_why_not_says_how_far_it_comes_and_to_whom_it_loses() -> None:
    said = why_not(LINE, a_line(), STATS, [], NOW_MS)
    assert said["steps"] == {"targeted": 500, "bid": 300, "won": 0, "served": 0}
    assert (said["reasons"], said["lost_to"], said["sentences"]) == (
        {"capped": 90, "paced": 7, "outbid": 200},
        {"d/x": 150},
        [],
    )


def test_why_not_says_what_needs_no_figures() -> None:
    assert "no campaign on the topic has it" in why_not("c/x", None, None, [], NOW_MS)["sentences"][0]
    unseen = why_not(LINE, a_line(flight_from=NOW_MS + 1), None, [], NOW_MS)["sentences"]
    assert unseen == ["c/l: its flight has not begun", "c/l: no figures of it: no worker has considered it yet"]
    idle = why_not(LINE, a_line(), AdStats(key=LINE), [], NOW_MS)["sentences"]
    assert idle == ["c/l: no place was asked for that its targeting holds for"]


def test_codes_of_losses_are_said_in_words() -> None:
    assert losses({"102": 3, "1000": 7, "9999": 1}) == {"capped": 7, "outbid": 3, "9999": 1}


def test_an_explanation_names_the_winner_and_never_the_person() -> None:
    said = explained(a_decision(1, matched=("country is DE",), lost_to={"d/x": 2, "d/y": 5}, losses={"102": 7}))
    assert (said["line_item"], said["matched"], list(said["lost_to"])) == (LINE, ["country is DE"], ["d/y", "d/x"])
    assert "ann" not in str(said)
    assert explained(a_decision(2, filled=False))["line_item"] is None


class Read(NamedTuple):
    value: bytes | None


async def test_what_was_sold_stands_whatever_was_said_when_it_could_not_be_looked_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sold = a_decision(1)
    failed = AdDecision(decision_id=sold.decision_id, nbr=1, reasons=("internal",))

    async def read_whole(settings: Any, name: str, take: Any, what: str) -> None:
        take([Read(encode(one)) for one in (failed, sold, failed)])

    monkeypatch.setattr("streams.commands.ad_explain.read_whole", read_whole)
    assert await decided(Settings(), sold.decision_id) == [sold]
