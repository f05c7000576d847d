"""A worker that sells one partition of requests and tells after every call of the ledger; it goes on when it is told.

python -m tests.connected.spending_worker URL PREFIX NAME PARTITION FIRST_BATCH
"""

import json
import sys
from collections.abc import Callable

from embeddings.events import Source
from embeddings.spend import Billable
from embeddings.spend_redis import RedisSpendLedger
from tests.embeddings.spending import EVENTS, LIFE, NOW, a_reservation, lease, tally

BATCHES, ROWS, PRICE = 6, 5, 10


def sell(ledger: RedisSpendLedger, name: str, partition: int, batch: int, told: Callable[..., None]) -> None:
    """One batch of requests, and the impressions and clicks of what was sold in it."""
    source = Source(EVENTS.topic, partition)
    lease(ledger, ROWS * PRICE, LIFE, worker=name)
    told("leased")
    rows = [
        a_reservation(f"{partition}-{batch}-{n}", PRICE, decision=f"{name} decided {n}".encode(), billed_by="click")
        for n in range(ROWS)
    ]
    answers = ledger.reserve(name, rows, now_ms=NOW)
    told("reserved", {row.decision_id: answer.decision.decode() for row, answer in zip(rows, answers, strict=True)})
    first = 2 * ROWS * batch
    happened = [
        Billable(row.decision_id, source, first + 2 * n + at, kind)
        for n, row in enumerate(rows)
        for at, kind in enumerate(("impression", "click"))
    ]
    ledger.confirm(happened, [tally(first - 1, first + 2 * ROWS - 1, source)], now_ms=NOW)
    told("confirmed")


def main(url: str, prefix: str, name: str, partition: str, first: str) -> None:
    """Sell what is left of the partition."""
    ledger = RedisSpendLedger(url, prefix=prefix)
    for batch in range(int(first), BATCHES):

        def told(step: str, what: object = None, batch: int = batch) -> None:
            print(json.dumps([batch, step, what]), flush=True)
            sys.stdin.readline()

        sell(ledger, name, int(partition), batch, told)
    ledger.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
