"""What `marquee demo` says of the ads that it showed."""

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from streams.commands.console import out

if TYPE_CHECKING:
    from streams.lab.ad_showing import AdRun

_SHOWN_LINES = 6


def told(run: "AdRun | None") -> dict[str, int]:
    """What `demo --json` says of ads: slots asked for, filled, spent in micros of a dollar, how often a cap held."""
    if run is None:
        return {"slots": 0, "filled": 0, "spend_micros": 0, "capped": 0}
    return {"slots": run.slots, "filled": run.filled, "spend_micros": run.spend_micros, "capped": run.capped}


def print_ads(run: "AdRun | None") -> None:
    """Fills and money, a budget beside its plan, a capped person, a win explained."""
    from streams.lab.ad_figures import bars, capped_words, explained, plan_words

    if run is None or not run.filled:
        return
    out.print(f"\n[bold]Ads[/]: {len(run.house)} campaigns, {run.slots:,} slots, {run.fill:.0%} filled, "
              f"{run.spend_micros / 1e6:,.2f} USD; " + _done(run))  # fmt: skip
    out.print(_table(run))
    if words := plan_words(run):
        spent, due = bars(run.plan)
        for said in (words, f"  plan  {due}", f"  spent {spent}"):
            out.print(said, markup=False, highlight=False)
    if words := capped_words(run):
        out.print(words, markup=False, highlight=False, soft_wrap=True)
    won = explained(run)
    if won is not None:
        out.print(Text(f"why {won.title} won", style="bold"))
        table = Table(box=None, show_header=False)
        for name, said in (*won.facts, *((f"{many} lost", why) for many, why in won.losses)):
            table.add_row(Text(f"  {name}"), Text(said))
        out.print(table)


def _done(run: "AdRun") -> str:
    names = {"impression": "impressions", "viewable": "viewable", "complete": "seen to the end", "click": "clicks"}
    return ", ".join(f"{run.done[kind]:,} {name}" for kind, name in names.items())


def _table(run: "AdRun") -> Table:
    table = Table("line item", "type", "spent", "impressions", "clicks", "of plan", box=None)
    for one in run.lines()[:_SHOWN_LINES]:
        table.add_row(
            Text(one.key),
            one.type.replace("_", " "),
            f"{one.spent_micros / 1e6:,.2f} {one.currency}",
            f"{one.impressions:,}",
            f"{one.clicks:,}",
            f"{one.indicator:.2f}" if one.indicator is not None else "",
        )
    return table
