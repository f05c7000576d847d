"""Requests and decisions as OpenRTB 2.6 spells them whole, for who speaks it: bid requests out, bid responses back.

On our own topics its names are kept where it has one; here everything is where OpenRTB has it, and what it has no place
for is in `ext`. Prices are units per thousand impressions.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from streams.contract.ad_records import AdDecision
from streams.contract.imp_records import Imp
from streams.contract.records import Request

_OWN_OF_IMP = ("bcat", "badv", "battr", "keyvalues")
_OWN = ("bcat", "badv", "bapp", "wseat", "bseat", "at", "cur", "tmax")


def bid_request(request: Request) -> dict[str, Any]:
    """A request as a `BidRequest`. Consent that was not said in OpenRTB's members is put there.

    >>> bid_request(Request(request_id="r1", imp=(Imp(id="1", bidfloor=0.5),)))["imp"]
    [{'id': '1', 'bidfloor': 0.5, 'bidfloorcur': 'USD', 'secure': 1}]
    """
    said = _plain(request)
    made: dict[str, Any] = {
        "id": request.request_id,
        "imp": [_imp(imp) for imp in request.imp],
        "cattax": request.cattax or 1,
    }
    made |= {name: said[name] for name in _OWN if name in said}
    for name in ("user", "device", "regs"):
        made |= {name: said[name]} if name in said else {}
    for name in ("site", "app"):
        if name in said:
            made[name] = _with_taxonomy(said[name])
            break
    _tell_consent(made, said.get("consent", {}))
    if request.user_id:
        made["user"] = {"id": request.user_id} | made.get("user", {})
    ext = {name: said[name] for name in ("battr", "keyvalues", "surface", "context") if name in said}
    return made | ({"ext": {"marquee": ext}} if ext else {})


def bid_response(request_id: str, decisions: Iterable[AdDecision]) -> dict[str, Any]:
    """The decisions of one request as a `BidResponse`: a seat is an advertiser; `nbr` where nothing was filled.

    >>> bid_response("r1", [AdDecision(decision_id="d", imp_id="1", nbr=2)])
    {'id': 'r1', 'nbr': 2}
    """
    decisions = list(decisions)
    seats: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for decision in decisions:
        if decision.filled:
            seats[decision.advertiser or ""].append(_bid(decision))
    if not seats:
        return {"id": request_id, "nbr": max((decision.nbr for decision in decisions), default=0)}
    currency = next(decision.currency for decision in decisions if decision.filled)
    seatbid = [{"bid": bids} | ({"seat": seat} if seat else {}) for seat, bids in seats.items()]
    return {"id": request_id, "seatbid": seatbid} | ({"cur": currency} if currency else {})


def _bid(decision: AdDecision) -> dict[str, Any]:
    exp_s = (decision.expires_ms - decision.decided_ms) // 1_000 if decision.expires_ms else 0
    said: dict[str, Any] = {
        "id": decision.decision_id,
        "impid": decision.imp_id,
        "price": decision.price_micros / 1_000,
        "adid": decision.creative,
        "cid": decision.campaign_id,
        "crid": decision.crid,
        "adomain": list(decision.adomain),
        "cat": list(decision.cat),
        "cattax": decision.cattax,
        "attr": list(decision.attr),
        "dealid": decision.dealid,
        "dur": decision.dur,
        "exp": max(exp_s, 0),
    }
    dsa = {"behalf": decision.behalf, "paid": decision.paid, "transparency": list(decision.transparency)}
    if told := _there(dsa):
        said["ext"] = {"dsa": told}
    return {"id": said["id"], "impid": said["impid"], "price": said["price"]} | _there(said)


def _imp(imp: Imp) -> dict[str, Any]:
    """An imp with the defaults that matter written out, and what is ours in `ext`."""
    said = _plain(imp)
    own = {name: said.pop(name) for name in _OWN_OF_IMP if name in said}
    if "bidfloor" in said:
        said.setdefault("bidfloorcur", imp.bidfloorcur)
    said.setdefault("secure", 1)
    return {"id": imp.id} | said | ({"ext": {"marquee": own}} if own else {})


def _with_taxonomy(channel: Mapping[str, Any]) -> dict[str, Any]:
    """Whoever names categories says of which taxonomy: absent is the oldest, which is deprecated."""
    made = dict(channel)
    if "content" in made:
        made["content"] = _with_taxonomy(made["content"])
    return made | ({"cattax": made.get("cattax", 1)} if "cat" in made else {})


def _tell_consent(made: dict[str, Any], consent: Mapping[str, Any]) -> None:
    regs = {name: consent[name] for name in ("gdpr", "us_privacy", "gpp", "gpp_sid", "coppa") if name in consent}
    for name, told in (
        ("regs", regs),
        ("user", {"consent": consent["tcf"]} if "tcf" in consent else {}),
        ("device", {"lmt": consent["lmt"]} if "lmt" in consent else {}),
    ):
        if told:
            made[name] = told | made.get(name, {})


def _plain(record: Any) -> dict[str, Any]:
    """A record as JSON would have it, without what is not said; flags are OpenRTB's 0 and 1."""
    decoded: dict[str, Any] = msgspec.to_builtins(record)
    return _there(decoded)


def _there(said: Mapping[str, Any]) -> dict[str, Any]:
    made = {name: _value(value) for name, value in said.items()}
    return {name: value for name, value in made.items() if value is not None and value != [] and value != {}}


def _value(value: Any) -> Any:
    match value:
        case bool():
            return int(value)
        case dict():
            return _there(value)
        case list() | tuple():
            return [_value(each) for each in value]
        case _:
            return value
