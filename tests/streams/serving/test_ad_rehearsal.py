"""After a rehearsal a decision has nothing left to load: no lane waits for a compiler."""

import subprocess
import sys

import pytest

from streams.lab.ad_house import AdHouse
from streams.serving.ad_rehearsal import rehearse
from tests.streams.builders import NOW_MS, small

LOOK = """
import gc
from numba.core.dispatcher import Dispatcher
from streams.serving.ad_rehearsal import rehearse
from tests.streams.serving.test_ads import a_campaign, a_house, a_request

def loaded():
    found = [each for each in gc.get_objects() if isinstance(each, Dispatcher)]
    return {each.py_func.__module__ + "." + each.py_func.__qualname__: len(each.signatures) for each in found}

house = a_house(a_campaign("capped", caps=[{"count": 9, "time_unit": "day"}]), a_campaign(bid=4_000_000))
for decide in (lambda: rehearse(house.serving, house.settings, house.now_ms), lambda: house.decisions(a_request())):
    before = loaded()
    assert decide()
    print(*sorted(name for name, many in loaded().items() if many > before.get(name, 0)))
"""
READING = {"embeddings.codec._unpack", "embeddings.ids._ids_of"}
"""What reading people's states loads, ads or not."""


@pytest.mark.slow
def test_the_first_decision_loads_no_loop_that_was_rehearsed() -> None:
    ran = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, timeout=240, check=True)
    rehearsed, decided = (set(line.split()) for line in ran.stdout.split("\n")[:2])
    assert rehearsed > {"ranking.ads.matching.match", "ranking.ads.auction._sell"}
    assert {name for name in decided if not name.startswith("numba.")} <= READING


def test_a_rehearsal_sells_and_leaves_nothing() -> None:
    house = AdHouse(settings=small(), now_ms=NOW_MS)
    assert rehearse(house.serving, house.settings, NOW_MS) > 0
    assert not house.exchange.market.sells
    assert not house.workers[0].server.ledger.totals().windows
