"""Workers that sell what people come for, minute by minute, out of one spend ledger: draws who comes, wins, pays."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from embeddings.events import Source
from embeddings.spend import Billable, Reservation, Totals, Verdict
from embeddings.spend_memory import Book, MemorySpendLedger
from ranking.ads.market import Exchange, Market
from ranking.ads.pacing import DAY_MS, PacingSettings
from ranking.ads.traffic import HOUR_MS
from streams.ad_settings import Ads
from streams.serving.budgets import Budgets

START_MS = 28 * DAY_MS
MINUTE_MS = 60_000
PARTITIONS = 8
EVENING = np.array([3, 2, 1, 1, 1, 1, 2, 4, 6, 7, 7, 8, 9, 8, 7, 7, 8, 10, 13, 16, 18, 17, 12, 6])


def an_open_ledger(book: Book | None = None) -> MemorySpendLedger:
    """A ledger in memory that nothing was spent of yet."""
    ledger = MemorySpendLedger(book)
    ledger.rebuild(Totals(windows={}, counts={}, offsets={}))
    ledger.reopen()
    return ledger


@dataclass
class Sellers:
    """Some workers. A candidate that may bid wins with `win_rate` and costs half to one and a half of `price`.

    What was sold is billed half a minute later with a chance of `show`, and released a quarter of an hour later else.
    """

    exchange: Exchange
    workers: int = 1
    per_day: float = 40_000
    shape_H: np.ndarray = field(default_factory=lambda: EVENING)
    win_rate: float = 0.3
    price: int = 5_000
    show: float = 1.0
    click_rate: float = 0.0
    seed: int = 0
    tick_ms: int = MINUTE_MS
    sold: dict[str, list[int]] = field(default_factory=dict)
    """When each line item was sold."""

    def __post_init__(self) -> None:
        self.book = Book()
        self.ledger = an_open_ledger(self.book)
        self.draw = np.random.default_rng(self.seed)
        self.budgets = [self.worker(n) for n in range(self.workers)]
        self.verdicts: list[Verdict] = []
        self.unbilled: list[tuple[int, str]] = []
        self.many = self.clicks = 0
        self.unclicked: list[tuple[int, str]] = []

    def worker(self, n: int) -> Budgets:
        """One that owns every so-manieth partition."""
        made = Budgets(
            MemorySpendLedger(self.book),
            self.exchange,
            Ads(chunk_s=2 * self.tick_ms / 1000, lease_s=max(600, 4 * self.tick_ms // 1000)),
            worker=f"w{n}.{self.seed}",
            partitions=PARTITIONS,
            pacing=PacingSettings(dead_man_ms=10 * self.tick_ms),
        )
        made.owned = [partition for partition in range(PARTITIONS) if partition % self.workers == n]
        return made

    def run(self, hours: float, start_ms: int = START_MS, edit: Callable[[int], object] = lambda now_ms: None) -> None:
        """Sell for some hours; `edit` may change campaigns at each tick."""
        for now_ms in range(start_ms, start_ms + int(hours * HOUR_MS), self.tick_ms):
            edit(now_ms)
            for n, budgets in enumerate(self.budgets):
                budgets.tick(now_ms + n)
            self.bill(now_ms)
            for budgets in self.budgets:
                self._sell(budgets, self.exchange.market, now_ms + 100)

    def _sell(self, budgets: Budgets, market: Market, now_ms: int) -> None:
        share = self.shape_H[now_ms // HOUR_MS % 24] / self.shape_H.sum()
        came = self.draw.poisson(self.per_day / self.workers * share * self.tick_ms / HOUR_MS)
        budgets.saw(np.full(came, now_ms))
        rows = [row for row, line in enumerate(market.lines) if line is not None and line.runs(now_ms)]
        row_M = np.tile(np.array(rows, np.int32), came)
        draw_M = self.draw.integers(0, 2**64, len(row_M), dtype=np.uint64)
        wins_M = (budgets.may_bid(market, row_M, draw_M, now_ms) == 0) & (self.draw.random(len(row_M)) < self.win_rate)
        row_W = row_M[wins_M]
        micros_W = self.draw.integers(self.price // 2, self.price * 3 // 2 + 1, len(row_W))
        covered_W = budgets.take(market, row_W, micros_W, now_ms)
        self._reserve(budgets, market, row_W[covered_W], micros_W[covered_W], now_ms)

    def _reserve(self, budgets: Budgets, market: Market, row_W: np.ndarray, micros_W: np.ndarray, now_ms: int) -> None:
        made: list[Reservation] = []
        for row, micros in zip(row_W.tolist(), micros_W.tolist(), strict=True):
            line, self.many = market.lines[row], self.many + 1
            (windows,) = budgets.windows(market, np.array([row]))
            booked = budgets.booked(market, row, windows)
            assert line is not None
            made.append(
                Reservation(
                    decision_id=f"d{self.many}",
                    key=line.key,
                    windows=windows.bound,
                    counted=windows.counted,
                    micros=micros,
                    decision=b"",
                    expires_ms=now_ms + 15 * MINUTE_MS,
                    kept_ms=now_ms + DAY_MS,
                    booked=booked.windows,
                    booked_by=booked.kind,
                    holds=booked.holds,
                )
            )
        answers = self.ledger.reserve(budgets.worker, made, now_ms=now_ms)
        budgets.told(market, row_W, micros_W)
        self.verdicts += [answer.verdict for answer in answers]
        for one, answer in zip(made, answers, strict=True):
            if answer.verdict is Verdict.reserved:
                self.sold.setdefault(one.key, []).append(now_ms)
                if self.draw.random() < self.show:
                    self.unbilled.append((now_ms + MINUTE_MS // 2, one.decision_id))

    def bill(self, now_ms: int) -> None:
        """The billable events up to a moment come."""
        due: Sequence[str] = [name for at_ms, name in self.unbilled if at_ms <= now_ms]
        self.unbilled = [(at_ms, name) for at_ms, name in self.unbilled if at_ms > now_ms]
        answers = self.draw.random(len(due)) < self.click_rate
        waits_ms = self.draw.integers(0, MINUTE_MS, len(due))
        clicked = [(now_ms + wait, name) for name, wait, answer in zip(due, waits_ms, answers, strict=True) if answer]
        self.unclicked = [one for one in self.unclicked + clicked if not self._click(*one, now_ms)]
        if due:
            self.ledger.confirm([Billable(name, Source("e", 0), self.many) for name in due], now_ms=now_ms)

    def _click(self, at_ms: int, name: str, now_ms: int) -> bool:
        if at_ms <= now_ms:
            self.clicks += 1
            self.ledger.confirm([Billable(name, Source("e", 0), self.many, "click")], now_ms=now_ms)
        return at_ms <= now_ms

    def spent(self, key: str, day: str = "") -> int:
        """What a line item or a campaign spent."""
        windows = self.ledger.totals().windows
        return sum(one.spent + one.reserved for window, one in windows.items() if window == (key, day, False))

    def delivered(self, key: str) -> int:
        """How many were sold, less those that were released."""
        counts = self.ledger.totals().counts.get(key, {})
        return counts.get("reserved", 0) - counts.get("released", 0) + counts.get("billed_late", 0)
