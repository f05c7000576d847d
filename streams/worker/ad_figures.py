"""How every line item stands: the ledger's totals beside the campaigns, as records of `ad-stats`, and back again."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from embeddings.events import Source
from embeddings.spend import LOST_TO, UNLIMITED, Spent, Totals, Window
from ranking.ads.campaigns import LineItem
from streams.contract.ad_records import AdStats, AdWindow
from streams.process.ad_metrics import Money
from streams.serving.ad_delivery import COUNT_OF, MONEY, Promise

POSITION = ""
"""The key of the record that ends a publication."""
NAMED = {
    "served": "served",
    "impressions": "impressions",
    "viewable": "viewable",
    "clicks": "clicks",
    "complete": "completes",
    "conversions": "conversions",
}
"""Counts with a field of their own."""
MOST_LOST_TO, HOURS = 10, 25
_HOUR_MS = 3_600_000
_NOTHING = Spent(UNLIMITED, 0, 0, 0, 0)


@dataclass(slots=True, kw_only=True)
class Figures:
    """What was published last. `totals` are those of the ledger that it was made of."""

    totals: Totals = field(default_factory=lambda: Totals(windows={}, counts={}, offsets={}))
    records: dict[str, AdStats] = field(default_factory=dict)
    time_ms: int = 0

    @classmethod
    def of(cls, records: Iterable[AdStats]) -> "Figures":
        """What a topic holds, in its order: whole publications, and of one that did not end only what was new then."""
        found, pending, position = dict[str, AdStats](), dict[str, AdStats](), AdStats()
        for record in records:
            if record.key != POSITION:
                pending[record.key] = record
                continue
            found |= pending
            pending.clear()
            position = record
        found = pending | found
        return cls(totals=_totals(found, position), records=found, time_ms=position.time_ms)

    def changed(
        self,
        newer: Totals,
        lines: Mapping[str, LineItem],
        promises: Mapping[str, Sequence[Promise]],
        now_ms: int,
        *,
        older_than_ms: int = 60_000,
        most: int = 500,
    ) -> "Figures":
        """The figures with what the ledger says is newer; `records` are only those to publish, the position last.

        Args:
            newer: from `SpendLedger.totals(self.totals)`.
            lines: line items by key.
            promises: what they are to deliver, by key.
            now_ms: wall clock.
            older_than_ms: records of line items with a promise are written again after so long.
            most: so many of these at most.
        """
        totals = self.totals.with_newer(newer)
        keys = {window.key for window in newer.windows} | set(newer.counts) - {POSITION}
        stale = [key for key in promises if key in self.records and now_ms - self.records[key].time_ms > older_than_ms]
        clock = _Clock(now_ms)
        records = {
            key: _record(key, totals, lines.get(key), promises.get(key, ()), self.records.get(key), clock)
            for key in sorted(keys.union(stale[:most]))
        }
        records[POSITION] = _position(totals, now_ms)
        return Figures(totals=totals, records=records, time_ms=now_ms)

    def take(self, published: "Figures") -> None:
        """These were published."""
        self.totals, self.time_ms = published.totals, published.time_ms
        self.records |= published.records
        self.records.pop(POSITION, None)


class _Clock:
    """One moment, and which day it is in each zone."""

    def __init__(self, now_ms: int) -> None:
        self.now_ms = now_ms
        self._days: dict[str, str] = {}
        today = datetime.fromtimestamp(now_ms / 1000, UTC).date()
        self.near = [(today + timedelta(days=by)).isoformat() for by in (-1, 0, 1)]

    def day(self, zone: str) -> str:
        if zone not in self._days:
            self._days[zone] = datetime.fromtimestamp(self.now_ms / 1000, ZoneInfo(zone)).date().isoformat()
        return self._days[zone]


def _record(
    key: str,
    totals: Totals,
    line: LineItem | None,
    promises: Sequence[Promise],
    before: AdStats | None,
    clock: _Clock,
) -> AdStats:
    counts = totals.counts.get(key, {})
    day = clock.day(line.time_zone) if line is not None else clock.near[1]
    life, today = (totals.windows.get(Window(key, of), _NOTHING) for of in ("", day))
    record = AdStats(
        key=key,
        campaign_id=line.campaign_id if line is not None else key.partition("/")[0],
        line_item_id=line.id if line is not None else key.partition("/")[2],
        spent_micros=life.spent,
        spent_today_micros=today.spent,
        reserved_micros=life.reserved,
        budget_micros=_limit(life),
        daily_budget_micros=_limit(today),
        day=day,
        funnel={name: many for name, many in counts.items() if name not in NAMED and not name.startswith(LOST_TO)},
        lost_to=_most({n.removeprefix(LOST_TO): many for n, many in counts.items() if n.startswith(LOST_TO)}),
        today=_today(counts, before, day),
        hours=_hours(before, life.spent, clock.now_ms),
        windows=tuple(
            AdWindow(day=window.day, counts=window.counts, **totals.windows[window]._asdict())
            for window in (Window(key, of, counts) for counts in (False, True) for of in ("", *clock.near))
            if window in totals.windows
        ),
        epoch=totals.epoch,
        number=totals.number,
        time_ms=clock.now_ms,
    )
    for name, attribute in NAMED.items():
        setattr(record, attribute, counts.get(name, 0))
    if line is not None:
        record.advertiser, record.name = line.advertiser, line.name
        record.type, record.currency = line.type.name, line.currency
    _judge(record, promises)
    return record


def _judge(record: AdStats, promises: Sequence[Promise]) -> None:
    """Put in the promise that is furthest behind; where nothing is due yet, the first."""
    judged = [(_delivered(record, promise), promise) for promise in promises]
    due = [(delivered / one.expected, delivered, one) for delivered, one in judged if one.expected > 0]
    if due:
        record.indicator, record.delivered, worst = min(due, key=lambda each: each[0])
    elif judged:
        record.delivered, worst = judged[0]
    else:
        return
    record.goal, record.goal_per, record.target, record.expected = worst


def money_of(records: Iterable[AdStats]) -> Money:
    """How the money of all line items stands; whole campaigns hold the same money again."""
    lines = [record for record in records if record.line_item_id]
    life = [record for record in lines if record.budget_micros is not None]
    due = [record for record in lines if record.goal == MONEY]
    over = [[(spent - budget) / max(budget, 1) for spent, budget in _limits(record)] for record in lines]
    return Money(
        budget=sum(record.budget_micros or 0 for record in life),
        spent=sum(record.spent_micros for record in life),
        reserved=sum(record.reserved_micros for record in life),
        leased=sum(w.leased for record in life for w in record.windows if not (w.day or w.counts)),
        due=int(sum(record.expected or 0 for record in due)),
        delivered=sum(record.delivered for record in due),
        exhausted=sum(max(shares, default=-1.0) >= 0 for shares in over),
        overspend=max((share for shares in over for share in shares if share > 0), default=0.0),
    )


def _limits(record: AdStats) -> list[tuple[int, int]]:
    """What was spent of each limit that there is, and the limit."""
    both = (record.spent_micros, record.budget_micros), (record.spent_today_micros, record.daily_budget_micros)
    return [(spent, budget) for spent, budget in both if budget is not None]


def _delivered(record: AdStats, promise: Promise) -> int:
    daily = promise.per == "day"
    if promise.goal == MONEY:
        return record.spent_today_micros if daily else record.spent_micros
    name = COUNT_OF.get(promise.goal, "")
    return record.today.get(name, 0) if daily else int(getattr(record, NAMED.get(name, ""), 0))


def _limit(window: Spent) -> int | None:
    return window.budget if window.budget < UNLIMITED else None


def _today(counts: Mapping[str, int], before: AdStats | None, day: str) -> dict[str, int]:
    """Counts since midnight: those at the end of the day before are what was published last then."""
    found = {}
    for name, attribute in NAMED.items():
        began = 0 if before is None else getattr(before, attribute)
        if before is not None and before.day == day:
            began -= before.today.get(name, 0)
        if (many := counts.get(name, 0) - began) > 0:
            found[name] = many
    return found


def _hours(before: AdStats | None, spent: int, now_ms: int) -> dict[str, int]:
    hours = (before.hours if before is not None else {}) | {str(now_ms // _HOUR_MS): spent}
    return dict(sorted(hours.items(), key=lambda each: int(each[0]))[-HOURS:])


def _most(lost_to: dict[str, int]) -> dict[str, int]:
    return dict(sorted(lost_to.items(), key=lambda each: (-each[1], each[0]))[:MOST_LOST_TO])


def _position(totals: Totals, now_ms: int) -> AdStats:
    return AdStats(
        funnel=dict(totals.counts.get(POSITION, {})),
        epoch=totals.epoch,
        number=totals.number,
        offsets={f"{source.topic}/{source.partition}": offset for source, offset in totals.offsets.items()},
        time_ms=now_ms,
    )


def _totals(records: Mapping[str, AdStats], position: AdStats) -> Totals:
    """The ledger's totals that records were made of."""
    windows = {
        Window(key, one.day, one.counts): Spent(one.budget, one.version, one.spent, one.reserved, one.leased)
        for key, record in records.items()
        for one in record.windows
    }
    counts = {key: counts_of(record) for key, record in records.items()} | {POSITION: dict(position.funnel)}
    return Totals(
        epoch=position.epoch,
        number=position.number,
        windows=windows,
        counts={key: of for key, of in counts.items() if of},
        offsets={_source(place): offset for place, offset in position.offsets.items()},
    )


def counts_of(record: AdStats) -> dict[str, int]:
    """All counts of a line item, by the ledger's names."""
    named = {name: getattr(record, attribute) for name, attribute in NAMED.items()}
    lost_to = {LOST_TO + name: many for name, many in record.lost_to.items()}
    return {name: many for name, many in (named | record.funnel | lost_to).items() if many}


def _source(place: str) -> Source:
    topic, _, partition = place.rpartition("/")
    return Source(topic, int(partition))


Lines = Callable[[], Mapping[str, LineItem]]
Promises = Callable[[int], Mapping[str, Sequence[Promise]]]
