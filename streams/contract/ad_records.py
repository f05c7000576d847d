"""What is asked, decided and counted about ads: records of `ads` and `ad-stats`, parts of `requests` and `slates`."""

from typing import Any

import msgspec

from streams.contract.fields import Record


class AdDecision(Record):
    """What became of one ad slot, on topic `ads`: filled or not, and why. Money is whole micros of `currency`.

    Names are OpenRTB's where it has one (`impid` is `imp_id`, `price` is `price_micros`, per impression). Events of the
    ad carry `decision_id`. `billed_by` is the event that is paid for, `event_micros` what it costs then. `losses` are
    how many candidates lost and why, `lost_to` who has what they wanted; `matched` says what the line item asked for
    and found, never more of the person. `expires_ms`, `billed_until_ms`, `kept_ms`, `windows`, `levels`, `person` and,
    in the campaign's currency, `reserved_micros` and `spends_micros` are the ledger's.

    On a surface that brings ads unasked `position` is its place on the page (0 is the first, beside those of `items`);
    events may name it by `slate_id` and `slot`. `show_rate` is the share of such ads that is expected to be shown,
    `lambda` what a unit of money weighed beside organic value when the page was laid.
    """

    decision_id: str
    user_id: str = ""
    imp_id: str = ""
    tagid: str = ""
    slate_id: str | None = None
    request_id: str | None = None
    position: int | None = None
    show_rate: float | None = None
    tradeoff: float | None = msgspec.field(default=None, name="lambda")
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
    decided_ms: int = 0
    expires_ms: int = 0
    billed_until_ms: int = 0
    kept_ms: int = 0
    person: str = ""
    windows: tuple[tuple[str, str], ...] = ()
    booked: tuple[tuple[str, str], ...] = ()
    booked_by: str = ""
    holds: int = 0
    levels: tuple[int, ...] = ()
    reserved_micros: int | None = None
    spends_micros: int | None = None


class AdWindow(Record):
    """A budget and where its money is, in whole micros; `day` is one of the campaign's clock, empty for life.

    Where it `counts`, it is a booked number in millionths.
    """

    day: str = ""
    counts: bool = False
    budget: int = 0
    version: int = 0
    spent: int = 0
    reserved: int = 0
    leased: int = 0


class AdStats(Record):
    """How a line item stands, on topic `ad-stats`, written when something changed; the last one under its key is true.

    The key is `campaign/line item`; records of whole campaigns, under the campaign's id, hold only money. The record
    under the empty key comes last of each publication: `offsets` says up to where each input partition is counted in
    what came before it. Counts are since the line item began, those in `today` since midnight of its campaign's clock.

    Attributes:
        key: as above.
        campaign_id: whose it is.
        line_item_id: empty where it is a campaign's.
        advertiser, name, type, currency: as the campaign says; empty once nobody knows it any more.
        served: slots that it was decided for.
        impressions: those that were seen to begin; `viewable` those that were long enough in view.
        clicks: the first one of each impression; so `completes`, `conversions`.
        spent_micros: since it began; `spent_today_micros` of these today.
        reserved_micros: what is out and may yet be billed.
        budget_micros: for life, null where there is none; `daily_budget_micros` for today.
        day: which day today is.
        goal: what the figures after it are in: `money` or a kind of `goal`; empty where nothing was booked.
        goal_per: `day` or `lifetime`.
        target: what was booked, with intended over-delivery.
        expected: how much of it was due by `time_ms`.
        delivered: how much of it there is.
        indicator: delivered over expected, of the limit that is furthest behind; null where nothing is due.
        funnel: all other counts, by the names of the spend ledger (`targeted`, `capped`, `outbid` …).
        today: counts of today by the same names.
        lost_to: how often it lost to which line item, those it lost to most.
        hours: micros spent by the end of each of the latest hours, by epoch hour.
        windows: its budgets, those of days gone by left out.
        epoch: names the ledger's life; `number` rises within it.
        offsets: in the record under the empty key: last offset counted, by `topic/partition`.
        time_ms: when it was so.
    """

    key: str = ""
    campaign_id: str = ""
    line_item_id: str = ""
    advertiser: str = ""
    name: str = ""
    type: str = ""
    currency: str = ""
    served: int = 0
    impressions: int = 0
    viewable: int = 0
    clicks: int = 0
    completes: int = 0
    conversions: int = 0
    spent_micros: int = 0
    spent_today_micros: int = 0
    reserved_micros: int = 0
    budget_micros: int | None = None
    daily_budget_micros: int | None = None
    day: str = ""
    goal: str = ""
    goal_per: str = ""
    target: int = 0
    expected: float | None = None
    delivered: int = 0
    indicator: float | None = None
    funnel: dict[str, int] = msgspec.field(default_factory=dict)
    today: dict[str, int] = msgspec.field(default_factory=dict)
    lost_to: dict[str, int] = msgspec.field(default_factory=dict)
    hours: dict[str, int] = msgspec.field(default_factory=dict)
    windows: tuple[AdWindow, ...] = ()
    epoch: str = ""
    number: int = 0
    offsets: dict[str, int] = msgspec.field(default_factory=dict)
    time_ms: int = 0
