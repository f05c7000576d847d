"""Campaigns from the command line: a file is checked as the topic will, what is published is listed and stopped."""

import asyncio
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from deploy.embedded import Broker
from streams.commands import ads
from streams.commands.cli import main
from streams.commands.control_topics import write
from streams.contract.ad_records import AdDecision, AdStats
from streams.contract.records import encode
from streams.settings import Settings
from streams.transport import topics
from tests.streams.builders import small

CREATIVE = {"crid": "cr1", "adomain": ["example.com"], "approved": True}
CAMPAIGN: dict[str, Any] = {
    "campaign_id": "c1",
    "advertiser": "acme",
    "line_items": [{"id": "l1", "bid_micros": 1_500_000, "creatives": [CREATIVE]}],
}


@pytest.fixture
def settings(embedded_broker: Broker, topic_prefix: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("MARQUEE_KAFKA__BOOTSTRAP", embedded_broker.bootstrap)
    monkeypatch.setenv("MARQUEE_KAFKA__IDEMPOTENT", "false")
    monkeypatch.setenv("MARQUEE_TOPICS__PREFIX", topic_prefix)
    monkeypatch.setenv("MARQUEE_CONSENT__DEFAULT", "deny")
    return small(kafka={"bootstrap": embedded_broker.bootstrap, "idempotent": False}, topics={"prefix": topic_prefix})


def marquee(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, the object of the last line, and standard error."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["ads", *arguments, "--json"])
    said = capsys.readouterr()
    last = said.out.rstrip().rpartition("\n")[2]
    return int(str(ended.value.code)), json.loads(last) if last else {}, " ".join(said.err.split())


def test_a_file_is_checked_line_by_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "campaigns.jsonl"
    file.write_text("\n".join((json.dumps(CAMPAIGN), "", json.dumps(CAMPAIGN | {"currency": "euro"}), "{")))
    code, said, err = marquee(capsys, "validate", str(file))
    assert code == 1
    assert [(one["line"], one["campaign_id"], len(one["errors"])) for one in said["campaigns"]] == [
        (1, "c1", 0), (3, None, 1), (4, None, 1),
    ]  # fmt: skip
    assert "line 3: currency is 'euro'; allowed: three capital letters of ISO 4217" in err
    assert "1 of 3 campaigns can be served" in err


def test_so_is_a_list_and_standard_input(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps([CAMPAIGN, CAMPAIGN | {"campaign_id": "c2"}], indent=1)))
    code, said, _ = marquee(capsys, "validate", "-")
    assert code == 0
    assert [one["campaign_id"] for one in said["campaigns"]] == ["c1", "c2"]
    assert not any(one["warnings"] for one in said["campaigns"])


def test_a_file_that_is_none_is_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (empty := tmp_path / "empty.json").write_text("[]")
    (binary := tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    assert "no campaign in it" in marquee(capsys, "validate", str(empty))[2]
    assert "not UTF-8 text" in marquee(capsys, "validate", str(binary))[2]
    assert "No such file" in marquee(capsys, "validate", str(tmp_path / "missing"))[2]


@pytest.mark.parametrize(
    ("line", "warning"),
    [
        ({"creatives": [CREATIVE | {"approved": False}]}, "c1/l1: none of 1 creatives is approved"),
        ({"flights": [{"until": 1_600_000_000_000}]}, "c1/l1: its last flight is over"),
        ({"status": "paused"}, "c1/l1: it is paused"),
        ({"daily_budget_micros": 0}, "c1/l1: a budget is 0"),
    ],
)
def test_what_would_never_be_shown_is_a_warning(
    line: dict[str, Any], warning: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "campaign.json"
    file.write_text(json.dumps(CAMPAIGN | {"line_items": [CAMPAIGN["line_items"][0] | line]}))
    code, said, err = marquee(capsys, "validate", str(file))
    assert code == 0
    assert said["campaigns"][0]["warnings"][0].startswith(warning)
    assert warning in err


def test_what_is_published_is_listed_and_stopped(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    first = {"id": "l2", "type": "sponsorship", "goal": {"kind": "share", "quantity": 50}, "creatives": [CREATIVE]}

    async def publish() -> None:
        await topics.apply(settings)
        for name, campaign in (("c1", CAMPAIGN), ("c2", CAMPAIGN | {"campaign_id": "c2", "line_items": [first]})):
            await write(settings, "campaigns", name.encode(), json.dumps(campaign).encode())
        await write(settings, "campaigns", b"c2", b'{"advertiser":"acme","currency":"euro"}')

    asyncio.run(publish())
    code, said, err = marquee(capsys, "list")
    assert code == 0
    assert [(line["line_item"], line["runs"], line["bid"], line["goal"]) for line in said["line_items"]] == [
        ("c2/l2", True, "", "50 share"),
        ("c1/l1", True, "1.50 USD cpm", ""),
    ]
    assert "2 campaigns, 2 line items, 2 in flight" in err
    code, _, err = marquee(capsys, "stop", "c3")
    assert code == 1
    assert "no campaign c3 is published; those that are: c1, c2" in err
    assert marquee(capsys, "stop", "c2")[1] == {"stopped": "c2"}
    assert set(asyncio.run(ads.published(settings))) == {"c1"}


def test_how_a_line_item_stands_and_why_is_read_from_the_topics(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    stats = [
        AdStats(key="c1/l1", campaign_id="c1", line_item_id="l1", impressions=1, funnel={"capped": 2}),
        AdStats(key="c1/l1", campaign_id="c1", line_item_id="l1", impressions=4, funnel={"capped": 3}),
        AdStats(key="c1", campaign_id="c1", spent_micros=5),
        AdStats(offsets={"events/0": 4}, time_ms=1),
    ]
    decision = AdDecision(
        decision_id="d1", slate_id="s1", filled=True, campaign_id="c1", line_item_id="l1", tagid="top"
    )

    async def publish() -> None:
        await topics.apply(settings)
        await write(settings, "campaigns", b"c1", json.dumps(CAMPAIGN).encode())
        for one in stats:
            await write(settings, "ad_stats", one.key.encode(), encode(one))
        for key, one in ((b"u1", decision), (b"u2", AdDecision(decision_id="d2", slate_id="s2", imp_id="s1"))):
            await write(settings, "ads", key, encode(one))

    asyncio.run(publish())
    code, said, err = marquee(capsys, "report")
    assert (code, [(one["line_item"], one["impressions"]) for one in said["line_items"]]) == (0, [("c1/l1", 4)])
    assert "1 line items" in err
    code, said, _ = marquee(capsys, "why-not", "l1")
    assert (code, said["reasons"]) == (0, {"capped": 3})
    code, said, _ = marquee(capsys, "explain", "s1")
    assert (code, [(one["decision_id"], one["line_item"]) for one in said["slots"]]) == (0, [("d1", "c1/l1")])
    assert marquee(capsys, "explain", "d2")[1]["slots"][0]["filled"] is False
    code, _, err = marquee(capsys, "explain", "nothing")
    assert code == 1
    assert "no ad was decided under nothing" in err
