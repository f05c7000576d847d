"""`marquee ads report` and `why-not`: how line items stand, from the topic `ad-stats`, seconds old at most."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from streams.commands.ads import ads_app, published, warnings_of
from streams.commands.console import Config, Failed, Json, err, finish, load, out
from streams.commands.control_topics import read_whole

if TYPE_CHECKING:
    from aiokafka import ConsumerRecord

    from ranking.ads.campaigns import LineItem
    from streams.contract.ad_records import AdStats
    from streams.settings import Settings

BEHIND, AHEAD = 0.9, 1.1
#: Steps of the funnel in the order in which a line item comes to them; the others say why one came no further.
STEPS = ("targeted", "bid", "won", "served")
#: Why a line item did not show, in the order in which it is found out, and what that is.
REASONS: Mapping[str, str] = {
    "blocked": "page or person block its category, advertiser or rating",
    "unapproved": "no approved creative fits",
    "capped": "the person has seen it often enough",
    "cap_unknown": "how often the person has seen it is not known, or may not be kept",
    "budget_exhausted": "a budget is used up",
    "paced": "held back, so that the budget lasts",
    "below_floor": "bid below what the place asks",
    "outbid": "others bid more, or stand before it",
    "refused": "the ledger had no room for it",
    "released": "served, and never seen",
    "invalid": "events of slots that it did not have",
}
_BARS = "▁▂▃▄▅▆▇█"


@ads_app.command("report")
def ads_report(config: Config = None, as_json: Json = False) -> None:
    """How every line item stands: spend, delivery against plan, what it lost to. Figures are seconds old."""
    stats = asyncio.run(standing(load(config)))
    lines = [one for key, one in sorted(stats.items()) if one.line_item_id]
    if lines:
        out.print(_table(lines))
    age_s = _age_s(stats)
    err.print(
        f"{len(lines)} line items, {age_s:,.1f} s old" if stats else "no figures yet: no worker has published any"
    )
    finish({"line_items": [reported(one) for one in lines], "age_s": round(age_s, 3)}, as_json)


@ads_app.command("why-not")
def ads_why_not(
    line_item: Annotated[str, typer.Argument(help="The line item: CAMPAIGN/LINE, or its id where that is clear.")],
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Why a line item does not show, or not more: how far it comes, what stops it, to whom it loses."""
    settings = load(config)
    stats, campaigns = asyncio.run(_both(settings))
    now_ms = time.time_ns() // 1_000_000
    lines = {line.key: line for campaign in campaigns.values() for line in campaign.line_items}
    key = resolved(line_item, {*lines, *(name for name, one in stats.items() if one.line_item_id)})
    campaign = campaigns.get(lines[key].campaign_id) if key in lines else None
    said = [] if campaign is None else warnings_of(campaign, now_ms)
    warnings = [warning for warning in said if warning.startswith(f"{key}: ")]
    found = why_not(key, lines.get(key), stats.get(key), warnings, now_ms)
    _print_why_not(found)
    finish(found, as_json)


async def standing(settings: "Settings") -> "dict[str, AdStats]":
    """The last figures of every line item and campaign, by key; under the empty key what they cover.

    Raises:
        Failed: they could not be read to their end.
        aiokafka.errors.KafkaConnectionError: no broker answers.
    """
    from streams.contract.records import decode_ad_stats

    stats: dict[str, AdStats] = {}

    def take(records: "Sequence[ConsumerRecord]") -> None:
        read = [decode_ad_stats(record.value) for record in records if record.value is not None]
        stats.update((one.key, one) for one in read)

    await read_whole(settings, "ad_stats", take, "figures of campaigns")
    return stats


async def _both(settings: "Settings") -> "tuple[dict[str, AdStats], dict[str, Any]]":
    return await standing(settings), await published(settings)


def resolved(name: str, keys: set[str]) -> str:
    """The line item that is meant.

    Raises:
        Failed: none, or several.
    """
    found = [name] if name in keys else sorted(key for key in keys if key.partition("/")[2] == name)
    if len(found) == 1:
        return found[0]
    if found:
        raise Failed(f"{name} is one of {', '.join(found)}; say which")
    raise Failed(f"no line item {name}; there are: {', '.join(sorted(keys)[:20]) or 'none'}")


def reported(one: "AdStats") -> dict[str, Any]:
    """A line item for scripts; money in micros of its currency."""
    return {
        "line_item": one.key,
        "type": one.type,
        "advertiser": one.advertiser,
        "currency": one.currency,
        "served": one.served,
        "impressions": one.impressions,
        "viewable": one.viewable,
        "clicks": one.clicks,
        "completes": one.completes,
        "conversions": one.conversions,
        "ctr": one.clicks / one.impressions if one.impressions else None,
        "ecpm_micros": ecpm_micros(one),
        "spent_micros": one.spent_micros,
        "spent_today_micros": one.spent_today_micros,
        "reserved_micros": one.reserved_micros,
        "budget_micros": one.budget_micros,
        "daily_budget_micros": one.daily_budget_micros,
        "goal": one.goal,
        "goal_per": one.goal_per,
        "target": one.target,
        "expected": one.expected,
        "delivered": one.delivered,
        "indicator": one.indicator,
        "reasons": top(one),
        "lost_to": one.lost_to,
        "hours": one.hours,
        "time_ms": one.time_ms,
    }


def ecpm_micros(one: "AdStats") -> int | None:
    """What a thousand impressions brought."""
    return one.spent_micros * 1_000 // one.impressions if one.impressions else None


def top(one: "AdStats", most: int = 3) -> dict[str, int]:
    """What stops it most often."""
    found = {name: one.funnel[name] for name in REASONS if one.funnel.get(name)}
    return dict(sorted(found.items(), key=lambda each: -each[1])[:most])


def curve(hours: Mapping[str, int]) -> str:
    """What was spent in each of the latest hours, as bars beside the highest; nothing where that is not known.

    >>> curve({"10": 100, "11": 100, "12": 180, "14": 340})
    '▁▄▁█'
    """
    at = {int(hour): spent for hour, spent in hours.items()}
    if len(at) < 2:
        return ""
    first, last = min(at), max(at)
    ends = [at[first]]
    for hour in range(first + 1, last + 1):
        ends.append(at.get(hour, ends[-1]))
    spent = [max(0, after - before) for before, after in pairwise(ends)]
    most = max(spent) or 1
    return "".join(_BARS[(len(_BARS) - 1) * one // most] for one in spent)


def why_not(
    key: str, line: "LineItem | None", one: "AdStats | None", warnings: Sequence[str], now_ms: int
) -> dict[str, Any]:
    """Everything that is known of why a line item does not show more."""
    funnel = one.funnel if one is not None else {}
    steps = {name: getattr(one, name, 0) if name == "served" else funnel.get(name, 0) for name in STEPS}
    sentences = list(warnings)
    if line is None:
        sentences.append(f"{key}: no campaign on the topic has it; it was stopped, or refused: marquee dlq list")
    elif not line.runs(now_ms) and not any("flight" in said or "it is" in said for said in warnings):
        sentences.append(f"{key}: its flight has not begun")
    if one is None:
        sentences.append(f"{key}: no figures of it: no worker has considered it yet")
    elif not steps["targeted"]:
        sentences.append(f"{key}: no place was asked for that its targeting holds for")
    return {
        "line_item": key,
        "sentences": sentences,
        "steps": steps,
        "reasons": {name: funnel[name] for name in REASONS if funnel.get(name)},
        "lost_to": dict(one.lost_to) if one is not None else {},
        "indicator": one.indicator if one is not None else None,
        "spent_micros": one.spent_micros if one is not None else 0,
        "budget_micros": one.budget_micros if one is not None else None,
    }


def _print_why_not(said: Mapping[str, Any]) -> None:
    for sentence in said["sentences"]:
        out.print(sentence, markup=False)
    table = Table("step", "how often", "", box=None)
    for name, many in said["steps"].items():
        table.add_row(name, f"{many:,}", "")
    for name, many in said["reasons"].items():
        table.add_row(Text(f"  {name}"), f"{many:,}", REASONS[name])
    for name, many in said["lost_to"].items():
        table.add_row(Text("  lost to"), f"{many:,}", Text(name))
    out.print(table)


def _table(lines: "Sequence[AdStats]") -> Table:
    headings = ("line item", "type", "spend of budget", "served", "billable", "clicks", "CTR", "eCPM", "delivery")
    table = Table(*headings, "by hour", "lost by", box=None)
    for one in lines:
        ecpm = ecpm_micros(one)
        table.add_row(
            Text(one.key),
            one.type,
            _spend(one),
            f"{one.served:,}",
            f"{one.impressions:,}",
            f"{one.clicks:,}",
            f"{one.clicks / one.impressions:.2%}" if one.impressions else "",
            f"{ecpm / 1e6:,.2f}" if ecpm is not None else "",
            delivery(one.indicator),
            curve(one.hours),
            ", ".join(f"{name} {many:,}" for name, many in top(one).items()),
        )
    return table


def delivery(indicator: float | None) -> Text:
    """Delivered over expected; red below .9, yellow above 1.1."""
    if indicator is None:
        return Text("")
    style = "red" if indicator < BEHIND else "yellow" if indicator > AHEAD else "green"
    return Text(f"{indicator:.2f}", style=style)


def _spend(one: "AdStats") -> str:
    budget = one.budget_micros if one.budget_micros is not None else one.daily_budget_micros
    spent = one.spent_micros if one.budget_micros is not None or budget is None else one.spent_today_micros
    return f"{spent / 1e6:,.2f}" + (f" of {budget / 1e6:,.2f}" if budget is not None else "") + f" {one.currency}"


def _age_s(stats: "Mapping[str, AdStats]") -> float:
    newest = max((one.time_ms for one in stats.values()), default=0)
    return max(0.0, time.time() - newest / 1_000) if newest else 0.0
