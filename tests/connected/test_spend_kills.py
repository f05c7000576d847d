"""Two workers are killed after any call of the spend ledger and begin again: what they sell, they sell once."""

import json
import subprocess
import sys
import threading

import pytest

from embeddings.spend import Totals
from embeddings.spend_redis import RedisSpendLedger
from tests.connected.spending_worker import BATCHES, PRICE, ROWS
from tests.embeddings.spending import HOUR, LIFE, LINE, NOW, opened, sums

pytestmark = pytest.mark.slow
STEPS = ("leased", "reserved", "confirmed")


class Partition:
    """A partition of requests, and whoever sells it; `kills` are the batches and steps in which one dies."""

    def __init__(self, url: str, prefix: str, number: int, kills: list[tuple[int, str]]) -> None:
        self.url, self.prefix, self.number, self.kills = url, prefix, number, kills
        self.lives, self.batch = 0, 0
        self.decisions: dict[str, str] = {}

    def run(self) -> None:
        """Until everything is sold; what was confirmed is committed once the worker was told to go on."""
        while self.batch < BATCHES:
            self.lives += 1
            name = f"{self.number}.{self.lives}"
            command = [sys.executable, "-m", "tests.connected.spending_worker"]
            arguments = [self.url, self.prefix, name, str(self.number), str(self.batch)]
            with subprocess.Popen(
                [*command, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            ) as worker:
                self.lead(worker)

    def lead(self, worker: "subprocess.Popen[str]") -> None:
        assert worker.stdout is not None
        assert worker.stdin is not None
        for line in worker.stdout:
            batch, step, told = json.loads(line)
            for name, decision in (told or {}).items():
                assert self.decisions.setdefault(name, decision) == decision
            if (batch, step) in self.kills:
                self.kills.remove((batch, step))
                worker.kill()
                return
            if step == "confirmed":
                self.batch = batch + 1
            worker.stdin.write("go on\n")
            worker.stdin.flush()


@pytest.mark.parametrize(
    "server", [pytest.param("valkey", marks=pytest.mark.embedded), pytest.param("redis7", marks=pytest.mark.redis)]
)
@pytest.mark.parametrize("budget", [10_000, 270])
def test_workers_that_are_killed_between_reserving_and_confirming_spend_nothing_twice(
    request: pytest.FixtureRequest, topic_prefix: str, server: str, budget: int
) -> None:
    url = request.getfixturevalue(server).url
    ledger = RedisSpendLedger(url, prefix=topic_prefix)
    opened(ledger, (LIFE, budget))
    partitions = [
        Partition(url, topic_prefix, number, list(zip(range(number, BATCHES, 2), STEPS, strict=True)))
        for number in range(2)
    ]
    threads = [threading.Thread(target=one.run) for one in partitions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.lives for one in partitions] == [4, 4]
    told = partitions[0].decisions | partitions[1].decisions
    assert len(told) == 2 * BATCHES * ROWS
    sold = [name for name, decision in told.items() if decision]
    assert [decision.decode() for decision in ledger.decisions(list(told))] == list(told.values())
    ledger.sweep(now_ms=NOW + HOUR)
    assert sums(ledger) == (budget - len(sold) * PRICE, 0, 0, len(sold) * PRICE)
    counts = counted(ledger.totals())
    assert counts == {"billed": len(sold), "clicks": len(sold), "impressions": len(sold), "reserved": len(sold)}
    assert len(sold) == len(told) if budget == 10_000 else 0 < len(sold) <= budget // PRICE
    ledger.close()


def counted(totals: Totals) -> dict[str, int]:
    """Of the line item, but for what was refused."""
    return {name: many for name, many in totals.counts[LINE].items() if name not in ("refused", "invalid")}
