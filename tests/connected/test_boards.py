"""What boards and rules ask, asked of a real Prometheus that scrapes a real worker and learner under load.

ML-100K is replayed with a house of ads. Prometheus scrapes both processes under two jobs: `marquee`, without a cluster,
and `media/recs-prod` in `eu1`. `BOARD_EVENTS` replays more than is needed, `BOARD_PICTURES` is a folder for pictures.
"""

import asyncio
import dataclasses
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from deploy.boards import BOARDS
from deploy.boards.__main__ import HERE
from deploy.boards.alerts import ALERTS
from deploy.boards.check import Answer, answers, table
from deploy.boards.objectives import OBJECTIVES, WINDOWS
from deploy.boards.pictures import draw
from deploy.boards.prometheus import Prometheus, Scope
from deploy.prometheus_server import Job, PrometheusServer
from streams.lab.ad_campaigns import CAPPED, RATES
from streams.lab.datasets import ML_100K_HALF_LIVES, UnreadableLog, ml_100k
from streams.lab.demo import run_demo
from streams.lab.local_stack import Stack

pytestmark = [pytest.mark.embedded, pytest.mark.slow, pytest.mark.timeout(600)]

EVENTS = int(os.environ.get("BOARD_EVENTS", "30000"))
PICTURES = os.environ.get("BOARD_PICTURES")
INTERVAL = "30s"
OVERRIDES = {
    "MARQUEE_SLATES__PER_EVENT": "all",
    "MARQUEE_LEARNER__REFRESH_MIN_S": "0.5",
    "MARQUEE_OBSERVE__EXAMPLES_PER_S": "1000",
    "MARQUEE_ADS__SECRET": "people of a public log, who need none",
    "MARQUEE_ADS__CURRENCIES": json.dumps(RATES),
    **{f"MARQUEE_HALF_LIVES__{name.upper()}": f"{seconds:g}" for name, seconds in ML_100K_HALF_LIVES.items()},
}
OURS = Scope(job="marquee", selector='job="marquee"', interval=INTERVAL)
THEIRS = Scope(job="media/recs-prod", cluster="eu1", selector='job="media/recs-prod", cluster="eu1"', interval=INTERVAL)


#: A gauge that nobody has set yet is NaN, and so is a percentile of nothing.
WAITS = {
    "Calibration": "outcomes of impressions, which a log of ratings has none of",
    "MarqueeCalibrationOff": "the same",
    "Calibration of chances": "ads that were shown for long enough",
    "Calibration error and entropy": "the same",
    "MarqueeAdCalibrationOff": "the same",
    "Drifted advertisers": "the same",
    "Spend against plan": "a line item with a plan that has begun to deliver",
    "Time of a request, 99 %": "somebody who asks over HTTP",
    "Not read by anybody": "what the embedded broker does not say: who has which partition",
    "MarqueePartitionUnowned": "the same",
}


@dataclasses.dataclass(frozen=True)
class Seen:
    """What came of every query under both sets of labels, and the rules' own state."""

    server: Prometheus
    ours: list[Answer]
    theirs: list[Answer]


@pytest.fixture(scope="module")
def seen() -> Iterator[Seen]:
    if shutil.which("prometheus") is None:
        refuse = pytest.fail if os.environ.get("REQUIRE_SERVERS") else pytest.skip
        refuse("prometheus is not installed: make test installs it")
    try:
        log = ml_100k().head(EVENTS)
    except UnreadableLog as error:
        pytest.skip(str(error))
    with Stack(OVERRIDES) as stack:
        stack.wait_until_ready()
        targets = [f"127.0.0.1:{port}" for port in (stack.http_port, stack.learner_port)]
        jobs = [
            Job(name="marquee", targets=targets),
            Job(name="media/recs-prod", targets=targets, labels={"cluster": "eu1"}),
        ]
        rules = [HERE / "prometheus" / f"{name}.yaml" for name in ("recording", "alerts")]
        with PrometheusServer(jobs, rules=rules) as started:
            began = time.monotonic()
            asyncio.run(run_demo(stack, log, lambda run: None))
            asyncio.run(_take_away(stack, next(iter(log.items))))
            time.sleep(3)  # two scrapes and an evaluation after the last of it
            server = Prometheus(started.url)
            if PICTURES:
                for board in BOARDS:
                    draw(board, server, OURS, Path(PICTURES), minutes=(time.monotonic() - began) / 60)
            yield Seen(server, answers(server, OURS), answers(server, THEIRS))


async def _take_away(stack: Stack, item: str) -> None:
    """An item is removed and a campaign stopped, so that these have happened too."""
    producer = AIOKafkaProducer(bootstrap_servers=stack.broker.bootstrap, acks="all")
    await producer.start()
    try:
        topics = stack.settings.topics
        await producer.send_and_wait(topics.name("catalog"), None, key=item.encode())
        await producer.send_and_wait(topics.name("campaigns"), None, key=CAPPED.split("/")[0].encode())
    finally:
        await producer.stop()


def test_every_query_of_every_board_and_rule_returns_data_for_both_sets_of_labels(seen: Seen) -> None:
    print(table({"marquee": seen.ours, "media/recs-prod, eu1": seen.theirs}))
    assert len(seen.ours) > 120
    assert not [answer.asked for answer in (*seen.ours, *seen.theirs) if answer.missing]


def test_a_query_returns_as_many_series_for_one_set_of_labels_as_for_the_other(seen: Seen) -> None:
    assert [answer.series for answer in seen.ours] == [answer.series for answer in seen.theirs]


def test_what_may_be_empty_is_named_and_little(seen: Seen) -> None:
    empty = {answer.asked.what for answer in seen.ours if not answer.series}
    assert empty <= {"GPU memory in use", "MarqueeGpuMemory"}


def test_every_query_holds_a_number_by_then_but_those_that_wait_for_something(seen: Seen) -> None:
    silent = {answer.asked.what.split(":")[0] for answer in seen.ours if answer.series and not answer.known}
    assert {re.sub(r" \d$", "", name) for name in silent} <= set(WAITS)


def test_rules_are_evaluated_without_an_error(seen: Seen) -> None:
    rules = seen.server.rules()
    assert len(rules) == len(ALERTS) + len(OBJECTIVES) * len(WINDOWS)
    assert not {rule["name"]: rule["lastError"] for rule in rules if rule["health"] != "ok"}
    recorded = seen.server.now('{__name__=~"job:marquee.*"}')
    assert {(one.labels["job"], one.labels.get("cluster", "")) for one in recorded} == {
        ("marquee", ""),
        ("media/recs-prod", "eu1"),
    }
    assert len(recorded) == 2 * len(OBJECTIVES) * len(WINDOWS)


def test_nobody_is_paged_while_all_is_well(seen: Seen) -> None:
    assert not seen.server.now('ALERTS{alertstate="firing", severity="page"}')
