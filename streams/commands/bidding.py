"""What `marquee evaluate ipinyou` prints: what bidders bought for the same budgets, and how true chances came."""

from dataclasses import asdict

from rich.table import Table

from streams.commands.console import err, out


def bought() -> dict[str, dict[str, float]]:
    """Run both bidders and the nine streams, print them as tables; the figures as scripts read them."""
    from streams.lab.ipinyou import run_ipinyou

    found = run_ipinyou(say=err.print)
    table = Table(title="campaign 2997, episodes of 1,000, budgets of 1/32", title_justify="left")
    for heading in ("", "impressions", "clicks", "cost"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for name, bidder in (("linear, b0 = 10", found.linear), ("marquee", found.marquee)):
        table.add_row(name, f"{bidder.impressions:,}", str(bidder.clicks), f"{bidder.cost:,}")
    out.print(table)
    c = found.calibration
    out.print(f"calibration: better than the model's own chances on {c.better} of {c.streams} streams;")
    out.print(f"normalised entropy {c.mean_ne_change:+.4f} on average, {c.worst_ne_change:+.4f} at worst;")
    out.print(f"the sum of chances within a tenth of the clicks on {c.ratio_ok}")
    figures = asdict(found)
    return {name: {key: round(value, 5) for key, value in part.items()} for name, part in figures.items()}
