"""`marquee ads explain`: why a slot of a page has the ad it has, from what was decided then."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from streams.commands.ads import ads_app
from streams.commands.console import Config, Failed, Json, finish, load, out
from streams.commands.control_topics import read_whole

if TYPE_CHECKING:
    from aiokafka import ConsumerRecord

    from streams.contract.ad_records import AdDecision
    from streams.settings import Settings


@ads_app.command("explain")
def ads_explain(
    name: Annotated[str, typer.Argument(metavar="ID", help="A slate, a request, or one decision.")],
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Why these ads: winner, price, what it took to win, what matched, who lost why, and to whom."""
    decisions = asyncio.run(decided(load(config), name))
    if not decisions:
        raise Failed(f"no ad was decided under {name}; what is older than topics.retention_h is gone")
    said = [explained(one) for one in decisions]
    for each in said:
        _print(each)
    finish({"slots": said}, as_json)


async def decided(settings: "Settings", name: str) -> "list[AdDecision]":
    """What was decided for a slate, a request or a slot, in the order of its places; each slot once.

    Raises:
        Failed: the topic could not be read to its end.
        aiokafka.errors.KafkaConnectionError: no broker answers.
    """
    from streams.contract.records import decode_ad

    found: dict[str, AdDecision] = {}
    word = name.encode()

    def take(records: "Sequence[ConsumerRecord]") -> None:
        for record in records:
            if record.value is None or word not in record.value:  # most are of others
                continue
            one = decode_ad(record.value)
            if name not in (one.decision_id, one.slate_id, one.request_id):
                continue
            if one.filled or not (one.decision_id in found and found[one.decision_id].filled):  # that one stands
                found[one.decision_id] = one

    await read_whole(settings, "ads", take, "decisions")
    return sorted(found.values(), key=lambda one: (one.position if one.position is not None else 1 << 30, one.imp_id))


def explained(one: "AdDecision") -> dict[str, Any]:
    """A decision for people and scripts; money in micros of its currency."""
    return {
        "decision_id": one.decision_id,
        "imp_id": one.imp_id,
        "tagid": one.tagid,
        "position": one.position,
        "filled": one.filled,
        "line_item": f"{one.campaign_id}/{one.line_item_id}" if one.filled else None,
        "advertiser": one.advertiser,
        "creative": one.crid or one.creative,
        "dealid": one.dealid,
        "currency": one.currency,
        "price_micros": one.price_micros,
        "bid_micros": one.bid_micros,
        "min_to_win_micros": one.min_to_win_micros,
        "floor_micros": one.floor_micros,
        "billed_by": one.billed_by,
        "event_micros": one.event_micros,
        "pctr": one.pctr,
        "explored": one.explored,
        "propensity": one.propensity,
        "personal": one.personal,
        "matched": list(one.matched),
        "reasons": list(one.reasons),
        "losses": losses(one.losses),
        "lost_to": dict(sorted(one.lost_to.items(), key=lambda each: -each[1])),
        "nbr": one.nbr,
        "decided_ms": one.decided_ms,
    }


def losses(counts: Mapping[str, int]) -> dict[str, int]:
    """How many lost why: the word of each code, those that cost most first.

    >>> losses({"102": 3, "1000": 7, "9999": 1})
    {'capped': 7, 'outbid': 3, '9999': 1}
    """
    from ranking.ads.losses import Loss

    words = {str(int(loss)): loss.name for loss in Loss}
    most = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    return {words.get(code, code): many for code, many in most}


def _print(said: Mapping[str, Any]) -> None:
    slot = said["tagid"] or said["imp_id"]
    place = f", place {said['position']}" if said["position"] is not None else ""
    head = f"{slot}{place}: {said['line_item'] or 'unfilled'}"
    if said["filled"]:
        head += f" ({said['advertiser']}, {said['creative']})"
    out.print(Text(head, style="bold"))
    table = Table(box=None, show_header=False)
    for name, value in _rows(said):
        table.add_row(Text(f"  {name}"), Text(value))
    out.print(table)


def _rows(said: Mapping[str, Any]) -> list[tuple[str, str]]:
    money = said["currency"]

    def mille(micros: int) -> str:
        return f"{micros / 1e3:,.4f} {money} per thousand"

    rows = [("why", ", ".join(said["reasons"])), ("no bid reason", str(said["nbr"] or ""))]
    if said["filled"]:
        chance = f"{said['pctr']:.3%}" if said["pctr"] is not None else ""
        drawn = f"by chance, {said['propensity']:.3f}" if said["explored"] and said["propensity"] is not None else ""
        event = f"{said['event_micros'] / 1e6:,.4f} {money} per {said['billed_by']}" if said["event_micros"] else ""
        rows += [
            ("pays", mille(said["price_micros"])),
            ("billed", event),
            ("bid", mille(said["bid_micros"])),
            ("would still have won at", mille(said["min_to_win_micros"])),
            ("chance of a click", chance),
            ("explored", drawn),
            ("profile", "read" if said["personal"] else "not read: the same for everybody here"),
            ("matched", "; ".join(said["matched"])),
        ]
    rows += [
        ("floor", mille(said["floor_micros"]) if said["floor_micros"] else ""),
        ("lost", ", ".join(f"{name} {many:,}" for name, many in said["losses"].items())),
        ("lost to", ", ".join(f"{name} {many:,}" for name, many in said["lost_to"].items())),
        ("decision", said["decision_id"]),
    ]
    return [(name, value) for name, value in rows if value]
