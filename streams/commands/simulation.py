"""`marquee simulate`: what the service would do in a made-up world, through its own code."""

from typing import Annotated, Any

import typer
from rich.table import Table

from streams.commands.console import Json, err, finish, out
from streams.commands.extras import require

simulate_app = typer.Typer(no_args_is_help=True, help="A made-up world, sold and served by the service's own code.")

_ROWS = {
    "spend error, mean": ("spend_error", "{:.2%}"),
    "spend error, worst": ("spend_error_worst", "{:.1%}"),
    "off plan, mean": ("plan_error", "{:.1%}"),
    "overspent, money": ("overspend", "{:,}"),
    "its bound": ("overspend_bound", "{:,}"),
    "overspent at worst": ("overspend_worst_share", "{:.2%}"),
    "budgets beyond the bound": ("overspent_beyond_bound", "{}"),
    "caps exceeded": ("caps_exceeded", "{}"),
    "spent twice": ("double_spend", "{}"),
    "starvation, minutes": ("starvation_minutes", "{}"),
    "throttle rate": ("throttle_rate", "{:.1%}"),
    "fill": ("fill", "{:.1%}"),
    "revenue": ("revenue_micros", "{:,}"),
    "requests/s": ("requests_per_s", "{:,}"),
}


@simulate_app.command()
def ads(
    campaigns: Annotated[int, typer.Option(help="How many, of all kinds.", min=10, max=10_000)] = 200,
    requests: Annotated[int, typer.Option(help="How many people ask in the day.", min=1_000)] = 20_000,
    workers: Annotated[int, typer.Option(help="How many sell.", min=1, max=16)] = 1,
    system: Annotated[list[str] | None, typer.Option(help="Only these ways to pace; may be repeated.")] = None,
    kills: Annotated[int, typer.Option(help="How often a worker is killed in the middle of a batch.", min=0)] = 0,
    redis: Annotated[bool, typer.Option("--redis", help="The ledger in a Redis that loses its tail once.")] = False,
    seed: Annotated[int, typer.Option(help="Of the world.")] = 0,
    as_json: Json = False,
) -> None:
    """Sell a day of ads through the service's own code, beside five yardsticks of pacing in the same world."""
    require("the simulation", "cpu", *(["demo"] if redis else []))
    from streams.lab.ad_days import OURS, YARDSTICKS, run_days

    known = (OURS, *YARDSTICKS)
    if unknown := ", ".join(sorted(set(system or ()) - set(known))):
        raise typer.BadParameter(f"{unknown} is none of {', '.join(known)}", param_hint="--system")
    systems = list(dict.fromkeys(system)) if system else [OURS] if kills or redis else list(known)
    result = run_days(
        campaigns=campaigns,
        requests=requests,
        workers=workers,
        kills=kills,
        redis=redis,
        systems=systems,
        seed=seed,
        say=err.print,
    )
    out.print(_table(result))
    out.print(f"{result['deliverable']} of {result['budgets']} budgets could be delivered; errors are of these")
    finish(result, as_json)


def _table(result: dict[str, Any]) -> Table:
    told = [f"{result['campaigns']} campaigns", f"{result['requests']:,} requests", f"{result['workers']} workers"]
    told += [f"{result['kills']} kills"] if result["kills"] else []
    told += ["Redis lost its tail once"] if result["rebuilt"] else []
    table = Table(title=", ".join(told), title_justify="left")
    table.add_column("")
    for name in result["systems"]:
        table.add_column(name, justify="right", no_wrap=True)
    for label, (key, form) in _ROWS.items():
        table.add_row(label, *(form.format(figures[key]) for figures in result["systems"].values()))
    return table
