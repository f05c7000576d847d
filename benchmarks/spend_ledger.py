"""What the spend ledger costs: calls of 256 rows, one client and one server on one machine.

    python -m benchmarks.spend_ledger [--url redis://…] [--rounds 12]

Reservations of 2,000 line items with two cap levels each, out of a budget for life, counted in three further windows as
workers do where no others have a budget; decisions of 300 bytes. Beside it the floor:
the same decisions under the same keys by plain pipelined SETs, interleaved round by round; the median of rounds counts.
`server` is the time of the server's own processor per row, from INFO.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable

import redis

from deploy.embedded import Valkey
from embeddings.events import Source
from embeddings.spend import (
    Billable,
    Budget,
    Reservation,
    Room,
    SpendLedger,
    Totals,
    Verdict,
    Want,
    Window,
    decision_id,
)
from embeddings.spend_redis import RedisSpendLedger

ROWS, CALLS, LINES, PEOPLE = 256, 20, 2_000, 100_000
NOW, DAY = 1_800_000_000_000, 86_400_000
EVENTS = Source("marquee.events.v1", 0)


def windows(line: int) -> tuple[Window, ...]:
    """Budgets of a line item and of its campaign, for life and for a day."""
    keys = f"c{line // 5}/l{line}", f"c{line // 5}"
    return tuple(Window(key, day) for key in keys for day in ("", "2027-01-15"))


def a_batch(ledger: SpendLedger, draw: random.Random, first: int) -> list[Reservation]:
    made = []
    people = [f"user-{draw.randrange(PEOPLE):012d}" for _ in range(ROWS)]
    for n, person, known in zip(range(first, first + ROWS), people, ledger.in_flight(people), strict=True):
        line = min(int(draw.paretovariate(0.6)), LINES) - 1
        of = windows(line)
        made.append(
            Reservation(
                decision_id=decision_id("requests", n % 16, n // 16, "1"),
                key=of[0].key,
                windows=of[:1],
                counted=of[1:],
                micros=draw.randrange(500, 5_000),
                decision=draw.randbytes(300),
                expires_ms=NOW + 600_000,
                kept_ms=NOW + DAY,
                person=person,
                version=known.version,
                rooms=(Room(of[0].key, 99), Room(of[2].key, 99)),
            )
        )
    return made


def rate(call: Callable[[list[Reservation]], object], batches: list[list[Reservation]]) -> float:
    """Rows per second."""
    begin = time.perf_counter()
    for batch in batches:
        call(batch)
    return ROWS * len(batches) / (time.perf_counter() - begin)


def measure(url: str, rounds: int) -> dict[str, list[float]]:
    ledger, plain, draw = (
        RedisSpendLedger(url, prefix="timing"),
        redis.Redis.from_url(url, protocol=2),
        random.Random(0),
    )
    ledger.rebuild(Totals(windows={}, counts={}, offsets={}))
    ledger.reopen()
    every = sorted({window for line in range(LINES) for window in windows(line)})
    for at in range(0, len(every), 1_000):
        ledger.set_budgets([Budget(window, 10**15, 1) for window in every[at : at + 1_000]])
    wants = [Want(windows(line)[0].key, windows(line)[:1], 10**10) for line in range(LINES)]
    found: dict[str, list[float]] = {}

    def reserve(batch: list[Reservation]) -> None:
        answers = ledger.reserve("w", batch, now_ms=NOW)
        assert all(verdict <= Verdict.again for verdict, _ in answers)

    def floor(batch: list[Reservation]) -> None:
        with plain.pipeline(transaction=False) as pipe:
            for one in batch:
                pipe.set(f"plain:{{spend}}:{one.decision_id}", one.decision, px=DAY)
            pipe.execute()

    def confirm(batch: list[Reservation], kind: str = "impression") -> None:
        ledger.confirm([Billable(one.decision_id, EVENTS, n, kind) for n, one in enumerate(batch)], now_ms=NOW)

    calls: dict[str, Callable[[list[Reservation]], object]] = {
        "floor: pipelined SETs": floor,
        "reserve": reserve,
        "reserve, redelivered": reserve,
        "confirm": confirm,
        "confirm, not paid for": lambda batch: confirm(batch, "viewable"),
        "folded": lambda batch: ledger.folded([one.decision_id for one in batch]),
        "in flight": lambda batch: ledger.in_flight([one.person for one in batch]),
    }
    for turn in range(rounds):
        ledger.lease("w", wants, now_ms=NOW, until_ms=NOW + DAY)
        batches = [a_batch(ledger, draw, (turn * CALLS + n) * ROWS) for n in range(CALLS)]
        for name, call in calls.items():
            busy = plain.info("cpu")["used_cpu_user"] + plain.info("cpu")["used_cpu_sys"]
            found.setdefault(name, []).append(rate(call, batches))
            busy = plain.info("cpu")["used_cpu_user"] + plain.info("cpu")["used_cpu_sys"] - busy
            found.setdefault(f"{name} (server)", []).append(busy / ROWS / CALLS * 1e6)
        begin = time.perf_counter()
        before = ledger.totals()
        found.setdefault("totals (ms)", []).append((time.perf_counter() - begin) * 1e3)
        reserve(a_batch(ledger, draw, (10_000 + turn) * ROWS))
        begin = time.perf_counter()
        ledger.totals(before)
        found.setdefault("totals since (ms)", []).append((time.perf_counter() - begin) * 1e3)
    ledger.close()
    plain.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url")
    parser.add_argument("--rounds", type=int, default=12)
    chosen = parser.parse_args()
    if chosen.url is not None:
        found = measure(chosen.url, chosen.rounds)
    else:
        with Valkey() as server:
            found = measure(server.url, chosen.rounds)
    floor = found["floor: pipelined SETs"]
    for name, values in found.items():
        if f"{name} (server)" in found:
            shares = statistics.median(value / least for value, least in zip(values, floor, strict=True))
            server_us = statistics.median(found[f"{name} (server)"])
            print(
                f"{name:24s} {statistics.median(values):9,.0f} rows/s {shares:5.2f} x floor {server_us:6.2f} us server"
            )
        elif "(ms)" in name:
            print(f"{name:24s} {statistics.median(values):9.1f}")


if __name__ == "__main__":
    main()
