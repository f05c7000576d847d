"""The commands around campaigns: check a file before it is published, list what runs, stop one."""

import asyncio
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from streams.commands.console import Config, Failed, Json, err, finish, load, out
from streams.commands.control_topics import read_whole, write

if TYPE_CHECKING:
    from aiokafka import ConsumerRecord

    from ranking.ads.campaigns import Campaign, LineItem
    from streams.settings import Settings

ads_app = typer.Typer(no_args_is_help=True, help="Campaigns: check, list, stop, see how they stand and why.")


@ads_app.command("validate")
def ads_validate(
    file: Annotated[Path, typer.Argument(help="Campaigns: JSON, a list of them, or one a line; - is standard input.")],
    opportunities: Annotated[
        int | None, typer.Option(min=1, help="Slots for ads a day: warns where more is booked than there is.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check campaigns as the campaigns topic will: what is wrong, and what would never be shown. Exit 1 if any is.

    With --opportunities also what all of them have booked together beyond what comes: then they deliver in proportion.
    """
    from embeddings.events import Source
    from ranking.ads.oversold import oversold
    from streams.contract.campaign_records import read_campaigns
    from streams.contract.consent import NOTHING, Judge
    from streams.contract.parsing import Rules

    rules, now_ms = Rules(judge=Judge(NOTHING)), time.time_ns() // 1_000_000
    found: list[dict[str, Any]] = []
    campaigns: list[Campaign] = []
    for n, (line, value) in enumerate(_records(file)):
        kept, _, dead = read_campaigns(Source("campaigns", 0), [_Read(n, now_ms, value)], rules)
        errors = [letter.detail for letter in dead]
        warnings = [said for facts in kept for said in warnings_of(facts.campaign, now_ms)]
        campaigns += [facts.campaign for facts in kept]
        name = kept[0].campaign.id if kept else None
        found.append({"line": line, "campaign_id": name, "errors": errors, "warnings": warnings})
        for said, colour in (*((e, "red") for e in errors), *((w, "yellow") for w in warnings)):
            err.print(f"[{colour}]line {line}:[/]", end=" ")
            err.print(said, markup=False)
    bad = sum(bool(one["errors"]) for one in found)
    err.print(f"{len(found) - bad} of {len(found)} campaigns can be served")
    lines = [line for campaign in campaigns for line in campaign.line_items]
    shortages = [said._asdict() for said in oversold(lines, opportunities, now_ms)] if opportunities else []
    for short in shortages:
        err.print("[yellow]oversold:[/]", end=" ")
        err.print(short["said"], markup=False)
    finish({"campaigns": found, "oversold": shortages}, as_json)
    if bad or not found:
        raise Failed(f"{bad} campaigns cannot be served" if bad else f"{file}: no campaign in it")


@ads_app.command("list")
def ads_list(config: Config = None, as_json: Json = False) -> None:
    """List the line items of all campaigns that are published, first those that are served first."""
    campaigns, now_ms = asyncio.run(published(load(config))), time.time_ns() // 1_000_000
    lines = sorted((line for campaign in campaigns.values() for line in campaign.line_items), key=_order)
    said = [described(line, now_ms) for line in lines]
    table = Table("line item", "advertiser", "type", "priority", "runs", "bid", "goal", "ads", box=None)
    shown = ("line_item", "advertiser", "type", "priority", "runs", "bid", "goal", "approved_creatives")
    for each in said:
        table.add_row(*(str(each[key]) for key in shown))
    if said:
        out.print(table)
    running = sum(each["runs"] for each in said)
    err.print(f"{len(campaigns)} campaigns, {len(said)} line items, {running} in flight")
    finish({"line_items": said}, as_json)


@ads_app.command("stop")
def ads_stop(
    campaign_id: Annotated[str, typer.Argument(help="The campaign, as its records are keyed.")],
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Stop a campaign at once, in all workers: null is written under its key. Publishing it again starts it again."""
    settings = load(config)
    if campaign_id not in (known := asyncio.run(published(settings))):
        raise Failed(f"no campaign {campaign_id} is published; those that are: {', '.join(sorted(known)) or 'none'}")
    asyncio.run(write(settings, "campaigns", campaign_id.encode(), None))
    err.print(f"campaign {campaign_id} is stopped")
    finish({"stopped": campaign_id}, as_json)


async def published(settings: "Settings") -> dict[str, "Campaign"]:
    """The campaigns that the topic holds, by id.

    Raises:
        Failed: it could not be read to its end.
        aiokafka.errors.KafkaConnectionError: no broker answers.
    """
    from embeddings.events import Source
    from streams.contract.campaign_records import read_campaigns
    from streams.contract.parsing import Rules

    rules, source = Rules.of(settings, {}), Source(settings.topics.name("campaigns"), 0)
    campaigns: dict[str, Campaign] = {}

    def take(records: "Sequence[ConsumerRecord]") -> None:
        kept, stopped, _ = read_campaigns(source, records, rules)
        for name in stopped:
            campaigns.pop(name, None)
        campaigns.update((facts.campaign.id, facts.campaign) for facts in kept)

    await read_whole(settings, "campaigns", take, "campaigns")
    return campaigns


def warnings_of(campaign: "Campaign", now_ms: int) -> Iterator[str]:
    """What can be served and will not be, or not as somebody expects."""
    from ranking.ads.campaigns import Status

    if not campaign.line_items:
        yield f"{campaign.id}: it has no line items"
    for line in campaign.line_items:
        approved = [creative for creative in line.creatives if creative.approved]
        if not approved:
            yield f"{line.key}: none of {len(line.creatives)} creatives is approved, so nothing is shown"
        if line.ends_ms <= now_ms:
            yield f"{line.key}: its last flight is over"
        if line.status is not Status.active:
            yield f"{line.key}: it is {line.status.name}"
        if 0 in (line.budget_micros, line.daily_budget_micros, campaign.budget_micros, campaign.daily_budget_micros):
            yield f"{line.key}: a budget is 0, so nothing is shown"


def described(line: "LineItem", now_ms: int) -> dict[str, Any]:
    """A line item for people and scripts; money in micros."""
    goal = line.goal
    booked = "" if not goal.quantity else f"{goal.quantity:,} {goal.kind.name}{' a day' if goal.daily else ''}"
    return {
        "line_item": line.key,
        "advertiser": line.advertiser,
        "type": line.type.name,
        "priority": line.priority,
        "runs": line.runs(now_ms),
        "status": line.status.name,
        "bid": f"{line.bid_micros / 1e6:,.2f} {line.currency} {line.bid_type.name}" if line.bid_micros else "",
        "bid_micros": line.bid_micros,
        "goal": booked,
        "budget_micros": line.budget_micros,
        "approved_creatives": sum(creative.approved for creative in line.creatives),
    }


def _order(line: "LineItem") -> tuple[int, int, str]:
    return line.priority, -line.bid_micros, line.key


class _Read:
    """A record of a file, as if it came from the topic."""

    key, headers = None, ()

    def __init__(self, offset: int, timestamp: int, value: bytes) -> None:
        self.offset, self.timestamp, self.value = offset, timestamp, value


def _records(file: Path) -> list[tuple[int, bytes]]:
    """The campaigns of a file and the lines that they begin in.

    Raises:
        Failed: it cannot be read.
    """
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Failed(f"{file}: {getattr(error, 'strerror', None) or 'not UTF-8 text'}") from None
    try:
        whole = json.loads(text)
        values = whole if isinstance(whole, list) else [whole]
        return [(1, json.dumps(value).encode()) for value in values]
    except json.JSONDecodeError:
        return [(n, line.encode()) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
