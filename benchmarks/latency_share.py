"""How much of an event's way to its slate is retrieval and ranking: `marquee bench slates` with a second worker.

It is spared both. It does everything else: it decodes, loads, folds, writes slates, tells, keeps, stores, publishes;
but it finds and ranks a number of positions once and takes the same candidates and slates for as many ever after. What
it takes above the echo is what would be left if retrieval and ranking cost nothing.

    python -m benchmarks.latency_share
"""

import argparse
import sys
from dataclasses import replace

from streams.commands import cli
from streams.lab.bench_slates import run_slates
from streams.lab.bench_yardsticks import YARDSTICKS
from streams.lab.synthetic import World
from streams.serving.live_model import Stock
from streams.serving.scoring import Scorer
from streams.serving.values import Asked, Found, Query, Slates, Traced

SPARED = "spared"


def spare_scoring() -> None:
    """Let every scorer of this process find and rank once for each number of positions and model."""
    find, choose = Scorer.find, Scorer.choose
    found: dict[tuple[int, int], Found] = {}
    chosen: dict[tuple[int, int], Slates] = {}

    def find_once(self: Scorer, asked: Asked, query: Query, stock: Stock) -> Found:
        key = len(query.position_P), stock.model.version
        if key not in found:
            found[key] = find(self, asked, query, stock)
        return replace(found[key], query=query)

    def choose_once(self: Scorer, asked: Asked, found: Found, stock: Stock) -> tuple[Slates, dict[int, Traced]]:
        key = len(found.query.position_P), stock.model.version
        if key not in chosen:
            chosen[key], _ = choose(self, asked, found, stock)
        return replace(chosen[key], position_Q=found.query.position_P), {}

    Scorer.find, Scorer.choose = find_once, choose_once  # type: ignore[method-assign]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0)
    given = parser.parse_args()
    found = run_slates(World(), seconds=given.seconds, say=print, beside={SPARED: (__spec__.name, SPARED)})
    columns = {"worker": "p50_ms", **{name: f"{name}_p50_ms" for name in (SPARED, *YARDSTICKS)}}
    print(f"{'p50 ms':>9}", *(f"{name:>12}" for name in columns), f"{'x echo':>12} {'spared':>8}")
    for load in found["loads"]:
        ratio = load[columns[SPARED]] / load["echo_p50_ms"]
        taken_ms = (f"{load[key]:12.1f}" for key in columns.values())
        print(f"{load['load_eps']:7,}/s", *taken_ms, f"{load['ratio_p50']:12.1f} {ratio:8.1f}")


if __name__ == "__main__":
    if sys.argv[1:] == [SPARED]:
        spare_scoring()
        sys.argv[1:] = ["worker"]
        cli.main()
    else:
        main()
