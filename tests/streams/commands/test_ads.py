"""Before campaigns are published: what is booked beyond what comes is said."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from streams.commands.cli import main

HOUR_MS = 3_600_000
NOW_MS = time.time_ns() // 1_000_000
"""Of all bookings: two made a millisecond apart would share less."""


def a_booking(name: str, quantity: int) -> dict[str, Any]:
    line = {
        "id": "l",
        "type": "standard",
        "bid_micros": 1_000_000,
        "goal": {"kind": "impressions", "quantity": quantity},
        "flights": [{"from": NOW_MS + HOUR_MS, "until": NOW_MS + 49 * HOUR_MS}],
        "creatives": [{"crid": "cr", "approved": True, "adomain": [f"{name}.example"]}],
    }
    return {"campaign_id": name, "advertiser": name, "line_items": [line]}


def test_validate_warns_of_oversold_inventory_before_launch(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "campaigns.json"
    file.write_text(json.dumps([a_booking("a", 3_000), a_booking("b", 1_000)]))
    told = {}
    for opportunities in ("1000", "2500"):
        with pytest.raises(SystemExit) as ended:
            main(["ads", "validate", str(file), "--opportunities", opportunities, "--json"])
        assert str(ended.value.code) == "0"
        said = capsys.readouterr()
        told[opportunities] = json.loads(said.out.rstrip().rpartition("\n")[2])["oversold"], " ".join(said.err.split())
    (short,), err = told["1000"]
    assert short["line_items"] == ["a/l", "b/l"]
    assert (short["booked"], short["opportunities"], short["delivered"]) == (4_000, 2_000, 0.5)
    assert "a/l, b/l: 4,000 booked of 2,000 opportunities in 2.0 days; each will deliver about 50% of that" in err
    assert told["2500"][0] == []
