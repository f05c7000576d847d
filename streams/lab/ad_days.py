"""Days of selling ads side by side: ours beside the yardsticks, and ours with workers killed and Redis restarted."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from embeddings.spend import SpendLedger
from ranking.ads.pacing import SYSTEMS
from streams.lab.ad_oracle import deliverable
from streams.lab.ad_simulation import Restarted, Simulation
from streams.lab.ad_standing import figures_of
from streams.lab.ad_world import AdWorld

OURS = "marquee"
YARDSTICKS = tuple(name for name in SYSTEMS if name != OURS)
KEYS = ("campaigns", "spend_error", "overspend", "overspend_bound", "caps_exceeded", "double_spend", "kills")
"""What scripts rely on."""


def run_days(
    *,
    campaigns: int,
    requests: int,
    workers: int = 1,
    kills: int = 0,
    redis: bool = False,
    systems: Sequence[str] = (OURS,),
    seed: int = 0,
    tick_s: int = 60,
    say: Callable[[str], object] = lambda line: None,
) -> dict[str, Any]:
    """Sell the same day once for each system; the figures are those of the first, with `systems` of all.

    Args:
        campaigns: how many.
        requests: how many people ask.
        workers: how many sell.
        kills: how often one of them is killed in the middle of a batch.
        redis: whether the ledger lies in a Redis of its own, which loses its tail once, half way.
        systems: of `SYSTEMS`.
        seed: of the world.
        tick_s: how often workers look at what was spent.
        say: told how it goes.
    """
    world = AdWorld.of(campaigns=campaigns, requests=requests, seed=seed)
    found: dict[str, dict[str, Any]] = {}
    for name in systems:
        with _ledger(redis) as (ledger, server):
            day = Simulation(
                world=world,
                system=name,
                workers=workers,
                kills=kills,
                ledger=ledger,
                server=server,
                tick_s=tick_s,
            ).run()
        rates, currency = day.house.settings.ads.rates(), day.house.settings.ads.currency
        found[name] = figures_of(day, deliverable(world, rates, currency))
        say(f"{name}: {day.seconds:.0f} s, {day.filled:,} of {day.slots:,} slots filled")
    first = found[next(iter(found))]
    return {**first, "seed": seed, "redis": redis, "systems": found}


@contextmanager
def _ledger(redis: bool) -> Iterator[tuple[Callable[[], SpendLedger] | None, Restarted | None]]:
    """How connections to a ledger are made, and the server to restart; none for a ledger in memory."""
    if not redis:
        yield None, None
        return
    from deploy.embedded import Valkey
    from embeddings.spend_redis import RedisSpendLedger

    with ExitStack() as open_, Valkey() as server:

        def ledger() -> SpendLedger:
            made = RedisSpendLedger(server.url)
            open_.callback(made.close)
            return made

        yield ledger, Restarted(server)
