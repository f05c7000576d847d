"""`marquee evaluate ipinyou`: an advertiser with a budget in a real market, and nine streams of rare clicks.

Campaign 2997 of iPinYou's log, as bidding papers measure by it: episodes of 1,000 impressions in log order, each with
1/32 of what that many cost in training, second price. The market's price stands in the auction as the reserve, so that
we win where we bid it and pay it. A price of the log is hundredths of a yuan per thousand impressions, 10 micros each.
"""

import lzma
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ranking.ads.auction import PLAIN_QUALITY, At, Auction, Sold, sell
from ranking.ads.bids import worth
from ranking.ads.campaigns import BidType
from ranking.ads.holdings import ANY_UNITS, Holdings
from ranking.ads.losses import Loss
from ranking.ads.prediction import UNKNOWN, Calibration, measured
from ranking.ads.shading import Landscape
from streams.lab.columns import UnreadableLog
from streams.lab.datasets import cache_folder

STREAMS = ("1458", "2259", "2261", "2821", "2997", "3358", "3386", "3427", "3476")
TEST = "2997_test.theta.txt.xz"
VALIDATION = "1000_{}.validation.txt.xz"
EPISODE = 1_000
LINEAR_BASE = 10
"""What the linear bidder of the papers bids for an impression of average click rate."""

_MICROS = 10
_TRAINING_IMPRESSIONS, _TRAINING_CLICKS, _TRAINING_COST = 312_437, 1_386, 19_689_072
_BUDGET_SHARE = 32
_MOST = 300 * _MICROS
_BUDGET = EPISODE * _TRAINING_COST * _MICROS // (_TRAINING_IMPRESSIONS * _BUDGET_SHARE)
_CLICK = _TRAINING_COST * _MICROS // (_TRAINING_CLICKS * _BUDGET_SHARE)
"""What the budget affords for a click, if every impression were bought: where factors on bids begin."""

# Chosen on the validation file of 2997 alone. There everything near buys the same, 170 to 172 clicks for 10 to 50 rows
# a batch and half-lives of 500 to 2,000 rows, where the linear bidder buys 149. That calibration goes on from an
# earlier log was chosen there too: over all pairs of its quarters, 510 clicks against 495 from nothing.
_BATCH = 20
_HALF_LIFE_ROWS = 1_000.0
_RATIO = (0.9, 1.1)


@dataclass(frozen=True, slots=True)
class Market:
    """R impressions in log order: whether clicked, what they cost, and the click rate that a model foresaw."""

    name: str
    click_R: NDArray[np.bool_]
    price_R: NDArray[np.int64]
    chance_R: NDArray[np.float64]

    def logits(self) -> NDArray[np.float64]:
        """The log-odds of what the model foresaw."""
        return np.asarray(np.log(self.chance_R / (1 - self.chance_R)))


@dataclass(frozen=True, slots=True)
class Bought:
    """What a bidder has for its budgets; cost in the log's own unit."""

    impressions: int
    clicks: int
    cost: int


@dataclass(frozen=True, slots=True)
class Recalibrated:
    """Second halves of streams, calibrated online, beside the model's own chances: changes of normalised entropy.

    `ratio_ok` counts streams whose sum of chances is within a tenth of the clicks that came.
    """

    streams: int
    better: int
    mean_ne_change: float
    worst_ne_change: float
    ratio_ok: int


@dataclass(frozen=True, slots=True)
class Ipinyou:
    """What `marquee evaluate ipinyou` measures."""

    linear: Bought
    marquee: Bought
    calibration: Recalibrated


def folder() -> Path:
    """Where iPinYou's logs are: `ipinyou` in the cache folder, else in a `shared/data` beside or above the code.

    Raises:
        UnreadableLog: in none of these.
    """
    above = [parent / "shared" / "data" for parent in Path(__file__).resolve().parents]
    places = [place / "ipinyou" for place in (cache_folder(), *above)]
    for place in places:
        if (place / TEST).is_file():
            return place
    raise UnreadableLog(f"iPinYou's logs ({TEST}, {VALIDATION.format('…')}) are in neither {places[0]} nor shared/data")


def read(path: Path) -> Market:
    """A log of `click price chance` lines; what has another number of fields is a heading.

    Raises:
        UnreadableLog: it is not there, or a line is not numbers.
    """
    try:
        with lzma.open(path, "rt") as lines:
            rows = [fields for line in lines if len(fields := line.split()) == 3]
        table_R3 = np.array(rows, np.float64).reshape(len(rows), 3)
    except (OSError, ValueError, lzma.LZMAError) as error:
        raise UnreadableLog(f"{path}: {error}") from None
    return Market(path.name, table_R3[:, 0] > 0, table_R3[:, 1].astype(np.int64), table_R3[:, 2])


def buy_linearly(market: Market, base: int = LINEAR_BASE) -> Bought:
    """Bid in proportion to the foreseen click rate while the episode's budget lasts: one auction of the whole log."""
    average = _TRAINING_CLICKS / _TRAINING_IMPRESSIONS
    bid_R = np.minimum(np.floor(base * market.chance_R / average).astype(np.int64) * _MICROS, _MOST)
    sold, rows = _auction(market, bid_R, 0), np.arange(len(bid_R))
    won_W = rows[sold.winner_RS[:, 0] >= 0]
    episode_W = won_W // EPISODE
    purse = _purse(len(bid_R) // EPISODE + 1)
    covered_W = purse.take(purse.key_L, episode_W, sold.price_RS[won_W, 0], 0)
    return _bought(market, won_W[covered_W])


def buy_paced(market: Market, calibration: Calibration) -> Bought:
    """Bid calibrated chances times one factor, set anew every few rows so that the budget lasts the episode.

    It knows what a bidder knows: prices of auctions that are over, clicks on what it bought, how many are to come. The
    calibration goes on learning, in place.
    """
    landscape = Landscape(lines=1, half_life_rows=_HALF_LIFE_ROWS)
    bought: list[NDArray[np.intp]] = []
    purse, all_logit_R = _purse(1), market.logits()
    for first in range(0, len(market.click_R), _BATCH):
        rows = np.arange(first, min(first + _BATCH, len(market.click_R)))
        if first % EPISODE == 0:
            purse = _purse(1)
        nobody_R = np.full(len(rows), UNKNOWN)
        logit_R = all_logit_R[rows]
        chance_R = calibration.predict(logit_R, nobody_R, nobody_R)
        value_R = worth(np.full(len(rows), BidType.cpc), np.full(len(rows), _CLICK), chance_R)
        factor = landscape.affordable(purse.left_L / (EPISODE - first % EPISODE))[0]
        bid_R = np.minimum(np.floor(factor * value_R).astype(np.int64), _MOST)
        sold = _auction(market, bid_R, first)
        won_W = np.flatnonzero(sold.winner_RS[:, 0] >= 0)
        covered_W = purse.take(purse.key_L, np.zeros(len(won_W), np.int64), sold.price_RS[won_W, 0], 0)
        held_W = won_W[covered_W]
        bought.append(rows[held_W])
        calibration.learn(logit_R[held_W], market.click_R[rows[held_W]], nobody_R[held_W], nobody_R[held_W])
        told_W = np.flatnonzero(bid_R > 0)
        landscape.learn(np.zeros(len(told_W), np.int64), sold.min_to_win_C[told_W], value_R[told_W])
    return _bought(market, np.concatenate(bought))


def _purse(episodes: int) -> Holdings:
    """The budget of each of so many episodes, as a worker holds a lease."""
    purse = Holdings.of(np.arange(1, episodes + 1, dtype=np.uint64))
    purse.left_L[:], purse.units_L[:], purse.until_ms_L[:] = _BUDGET, ANY_UNITS, 1
    return purse


def _auction(market: Market, bid_R: NDArray[np.int64], first: int) -> Sold:
    """Rows from `first` on, each a request of one slot with us as the only candidate; a bid of 0 is none."""
    R = len(bid_R)
    return sell(
        Auction(
            start_Q=np.arange(R + 1),
            request_R=np.arange(first, first + R, dtype=np.uint64),
            slots_R=np.ones(R, np.int64),
            at_R=np.full(R, At.second_price, np.int8),
            line_C=np.zeros(R, np.uint64),
            tier_C=np.zeros(R, np.int64),
            bid_C=bid_R,
            reserve_C=market.price_R[first : first + R] * _MICROS,
            quality_C=np.full(R, PLAIN_QUALITY, np.int64),
            deal_C=np.full(R, At.market, np.int8),
            barred_C=np.where(bid_R > 0, 0, Loss.paced).astype(np.int16),
        )
    )


def _bought(market: Market, rows: NDArray[np.intp]) -> Bought:
    return Bought(len(rows), int(market.click_R[rows].sum()), int(market.price_R[rows].sum()))


def calibrated(market: Market) -> tuple[Calibration, NDArray[np.float64]]:
    """A calibration that has learned a log from its first row, and what it foresaw of each row before it learned it."""
    calibration, nobody_R = Calibration(), np.full(len(market.click_R), UNKNOWN)
    return calibration, calibration.learn(market.logits(), market.click_R, nobody_R, nobody_R)


def recalibrate(markets: list[Market]) -> Recalibrated:
    """Calibrate each stream online and measure the second halves."""
    change_M, ratio_M = np.empty((2, len(markets)))
    for m, market in enumerate(markets):
        late = slice(len(market.click_R) // 2, None)
        before = measured(market.chance_R[late], market.click_R[late])
        after = measured(calibrated(market)[1][late], market.click_R[late])
        change_M[m], ratio_M[m] = after.entropy - before.entropy, after.ratio
    return Recalibrated(
        streams=len(markets),
        better=int((change_M < 0).sum()),
        mean_ne_change=float(change_M.mean()),
        worst_ne_change=float(change_M.max()),
        ratio_ok=int(((ratio_M >= _RATIO[0]) & (ratio_M <= _RATIO[1])).sum()),
    )


def run_ipinyou(say: Callable[[str], None] = lambda text: None) -> Ipinyou:
    """Buy on the test log of 2997 with both bidders and calibrate the nine validation streams.

    Raises:
        UnreadableLog: a log is missing or is another one.
    """
    place = folder()
    test, earlier = read(place / TEST), {name: read(place / VALIDATION.format(name)) for name in STREAMS}
    say(f"{place}: {len(test.click_R):,} impressions of campaign 2997, {int(test.click_R.sum())} clicks")
    linear, paced = buy_linearly(test), buy_paced(test, calibrated(earlier["2997"])[0])
    return Ipinyou(linear, paced, recalibrate(list(earlier.values())))
