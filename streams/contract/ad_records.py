"""What is decided about ads: the record of `ads`, which slates hold as well. What is asked is in `imp_records`."""

from typing import Any

import msgspec

from streams.contract.fields import Record


class AdDecision(Record):
    """What became of one ad slot, on topic `ads`: filled or not, and why. Money is whole micros of `currency`.

    Names are OpenRTB's where it has one (`impid` is `imp_id`, `price` is `price_micros`, per impression). Events of the
    ad carry `decision_id`. `billed_by` is the event that is paid for, `event_micros` what it costs then. `losses` are
    how many candidates lost and why, `lost_to` who has what they wanted; `matched` says what the line item asked for
    and found, never more of the person. `tradeoff`, written `lambda`, is what a micro was worth in the organic value of
    the page that the ad was weighed against, 0 where it was not. `expires_ms`, `kept_ms`, `windows`, `levels` and
    `person` are the ledger's.
    """

    decision_id: str
    user_id: str = ""
    imp_id: str = ""
    tagid: str = ""
    slate_id: str | None = None
    request_id: str | None = None
    position: int | None = None
    filled: bool = False
    campaign_id: str | None = None
    line_item_id: str | None = None
    advertiser: str | None = None
    creative: str | None = None
    crid: str | None = None
    item_id: str | None = None
    adomain: tuple[str, ...] = ()
    cat: tuple[str, ...] = ()
    cattax: int = 1
    attr: tuple[int, ...] = ()
    dealid: str | None = None
    dur: int | None = None
    price_micros: int = 0
    bid_micros: int = 0
    event_micros: int = 0
    billed_by: str = ""
    currency: str = ""
    rates: str = ""
    min_to_win_micros: int = 0
    floor_micros: int = 0
    pctr: float | None = None
    pcvr: float | None = None
    pvtr: float | None = None
    propensity: float | None = None
    explored: bool = False
    personal: bool = False
    behalf: str | None = None
    paid: str | None = None
    transparency: tuple[dict[str, Any], ...] = ()
    matched: tuple[str, ...] = ()
    nbr: int = 0
    reasons: tuple[str, ...] = ()
    losses: dict[str, int] = msgspec.field(default_factory=dict)
    lost_to: dict[str, int] = msgspec.field(default_factory=dict)
    model_version: str = ""
    tradeoff: float = msgspec.field(default=0.0, name="lambda")
    decided_ms: int = 0
    expires_ms: int = 0
    kept_ms: int = 0
    person: str = ""
    windows: tuple[tuple[str, str], ...] = ()
    levels: tuple[int, ...] = ()
