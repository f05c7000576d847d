"""After a rehearsal an answer and a decision have nothing left to load: no lane waits for a compiler."""

import subprocess
import sys
from pathlib import Path

import pytest

from embeddings import snapshots
from embeddings.items import ItemFacts
from streams.lab.ad_house import AdHouse
from streams.serving import rehearsal
from streams.serving.rehearsal import Rehearsal
from tests.streams.builders import NOW_MS, Service, a_log, small

LOOK = """
import gc, sys
from pathlib import Path
from numba.core.dispatcher import Dispatcher
from embeddings import snapshots
from streams.serving.rehearsal import Rehearsal
from streams.worker.posted_requests import place_of
from streams.worker.stored_slates import StoredSlates
from tests.streams.builders import NOW_MS, small
from tests.streams.serving.test_ads import a_campaign, a_house, a_request, an_impression
from tests.streams.serving.test_rehearsal import live

def loaded():
    found = [each for each in gc.get_objects() if isinstance(each, Dispatcher)]
    return {each.py_func.__module__ + "." + each.py_func.__qualname__: len(each.signatures) for each in found}

def told(do):
    before = loaded()
    done = do()
    names = [name for name, many in loaded().items() if many > before.get(name, 0)]
    print(*sorted(name for name in names if not name.startswith("numba.")))
    return done

worker = Rehearsal(small(), NOW_MS)
told(worker.slates)
house = told(lambda: live(Path(sys.argv[1])))
told(lambda: place_of("ann", "r", 4))
told(lambda: StoredSlates(reads=house.users(), serving=house.serving, settings=house.settings)._read(["ann", "bob"]))
told(worker.ads)
def sell():
    shop = a_house(a_campaign("capped", caps=[{"count": 9, "time_unit": "day"}]), a_campaign(bid=4_000_000))
    for _ in range(2):
        ((decision,),) = shop.decisions(a_request())
        assert decision.filled
        shop.tell(an_impression(decision))
told(sell)
"""


def live(folder: Path) -> AdHouse:
    """What a worker meets in its first minute: a catalogue, people before there is a snapshot and after it."""
    house = AdHouse(settings=small(), now_ms=NOW_MS)
    names = [f"i{n:03d}" for n in range(60)]
    house.serving.catalogue([ItemFacts(name=name, added_s=NOW_MS // 1000) for name in names], names[-1:])
    for taught in (False, True):
        if taught:
            house.serving.swap(snapshots.load(snapshots.manifests(folder)[-1]))
        for users in (("ann",), ("ann", "bob", "cy")):
            kinds = ("play", "like", "skip", "impression")
            happened = [{"type": kind, "item_id": item} for item in names for kind in kinds]
            said = [{"user_id": user, "event_time": NOW_MS, **one} for user in users for one in happened]
            recommender = house.workers[0].recommender
            answer = recommender.respond([house.events(said, 0)])
            recommender.tell(answer)
            recommender.store(recommender.keep(answer))
            asked = {"event_time": NOW_MS, "exclude": ["i001"], "context": {"country": "AT", "surface": "home"}}
            house.ask(*({"request_id": "r", "user_id": user, **asked} for user in users))
    house.serving.turn_over()
    return house


@pytest.mark.slow
def test_nothing_is_loaded_in_a_lane_that_was_rehearsed(tmp_path: Path) -> None:
    service = Service()
    service.live_through(a_log(300, items=40))
    frozen = service.learner.freeze()
    frozen.ranker["learned"][:] = 1
    snapshots.write(frozen.build(NOW_MS)[0], tmp_path)
    ran = subprocess.run(
        [sys.executable, "-c", LOOK, str(tmp_path)], capture_output=True, text=True, timeout=240, check=False
    )
    assert ran.returncode == 0, ran.stderr
    slates, *lanes, ads, sold = (set(line.split()) for line in ran.stdout.splitlines())
    assert slates > {"embeddings.fold._fold", "ranking.frozen._cross", "embeddings.ids._murmur2"}
    assert lanes == [set()] * 3
    assert ads > {"ranking.ads.matching.match", "ranking.ads.auction._sell"}
    assert sold == set()


def test_what_is_rehearsed_makes_slates_and_sells_ads() -> None:
    stage = rehearsal.stage(small(), NOW_MS)
    assert rehearsal.answer(stage, small(), NOW_MS) > 2
    assert rehearsal.sell(stage, small(), NOW_MS) > 0


def test_it_happens_once(monkeypatch: pytest.MonkeyPatch) -> None:
    done = list[str]()
    for part in ("answer", "sell"):
        monkeypatch.setattr(rehearsal, part, lambda *_, part=part: done.append(part))
    one = Rehearsal(small(), NOW_MS)
    for _ in range(2):
        one.ads()
        one.slates()
        assert one.ready
    assert done == ["sell", "answer"]
