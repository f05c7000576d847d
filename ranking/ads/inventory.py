"""All line items and creatives as columns: what a batch of decisions looks at, as it was at one moment.

A line item keeps its row while it lives, so that what others know of it by row (targeting, pacing) stays right; the row
of one that is gone is given to another. One thread writes (`put`, `stop`) and hands out snapshots; any thread reads
those.

>>> inventory = Inventory()
>>> inventory.snapshot().rows
0
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import xxhash
from numpy.typing import NDArray

from ranking.ads.campaigns import FOREVER_MS, Campaign, Creative, LineItem, Status
from ranking.ads.losses import Loss

T = TypeVar("T")
FORMATS = ("banner", "video", "audio", "native")
ANY_SIZE = 0
UNRATED_AGE = 13
"""What nobody rated is shown to no child: neither under `coppa` nor under a parental limit below this."""
TAXONOMIES = range(1, 10)
"""Numbers of AdCOM's list of category taxonomies that requests and creatives may speak in."""
UNCATEGORISED = 0
"""In place of a taxonomy: categories that are not there, or that nobody else can read."""
_FLIGHT_BYTES = 16
_FEW_TOKENS = 256
"""So many are not worth looking for those that nobody carries."""
_BLOCKED = {
    "adv": Loss.advertiser_excluded, "cat": Loss.category_excluded, "cattax": Loss.category_excluded,
    "app": Loss.app_excluded,
}  # fmt: skip
_LINES = np.dtype(
    [
        ("hash", "u8"), ("live", "?"), ("type", "u1"), ("priority", "u1"), ("bid_type", "u1"), ("rotation", "u1"),
        ("bid_micros", "i8"), ("advertiser", "i4"), ("deal", "i4"), ("deal_at", "i1"), ("deal_micros", "i8"),
    ]
)  # fmt: skip
_CREATIVES = np.dtype(
    [
        ("approved", "?"), ("format", "u1"), ("size", "i8"), ("duration_s", "i4"), ("age", "u1"), ("weight", "i4"),
        ("sequence", "i4"),
    ]
)  # fmt: skip


def size_of(width: int, height: int) -> int:
    """A size as one number.

    >>> size_of(300, 250) == size_of(250, 300)
    False
    """
    return width << 20 | height


class Tokens:
    """Numbers for words that creatives or line items carry; words that none carries have none.

    `losses` says by number what a creative that carries it is turned away with where it is blocked.
    """

    def __init__(self) -> None:
        self._of: dict[str, int] = {}
        self.losses: list[int] = []

    def __len__(self) -> int:
        return len(self._of)

    @property
    def words(self) -> list[str]:
        """The words in the order of their numbers."""
        return list(self._of)

    def learn(self, words: Iterable[str]) -> list[int]:
        """The numbers of words, given where they are new."""
        for word in (words := list(dict.fromkeys(words))):
            if word not in self._of:
                self.losses.append(_BLOCKED.get(word.partition(":")[0], Loss.creative_filtered))
                self._of[word] = len(self._of)
        return [self._of[word] for word in words]

    def known(self, words: Iterable[str]) -> list[int]:
        """The numbers of those words that have one."""
        return [self._of[word] for word in words if word in self._of]


@dataclass(frozen=True, slots=True, eq=False)
class House:
    """The inventory at one moment: L rows of line items (some empty), N creatives, T tokens.

    Attributes:
        rows: L.
        lines: by row; `None` where there is none.
        line_L: structured columns of line items: `hash` names it in every worker, `live` is whether it is active,
            `advertiser` and `deal` are tokens (-1: no deal), money is micros.
        flight_start_L1, flight_F2: their flights, from and until in ms.
        creative_start_L1, creative_N: their creatives, structured columns: `format` is a place in `FORMATS`, `size` is
            `size_of` or `ANY_SIZE`, `duration_s` 0 where it has none.
        creatives: the creatives themselves, in the same order.
        carried_start_N1, carried_M: tokens that creatives carry: `adv:` hosts, `cat:` categories, `attr:`, `mime:`.
        tokens: what the numbers mean; shared with other snapshots, and may have grown since.
        loss_T: `Tokens.losses`.
    """

    rows: int
    lines: tuple[LineItem | None, ...]
    line_L: NDArray[Any]
    flight_start_L1: NDArray[np.int64]
    flight_F2: NDArray[np.int64]
    creative_start_L1: NDArray[np.int64]
    creative_N: NDArray[Any]
    creatives: tuple[Creative, ...]
    carried_start_N1: NDArray[np.int64]
    carried_M: NDArray[np.int32]
    tokens: Tokens
    loss_T: NDArray[np.int16]


class _Row(NamedTuple):
    """The columns of one line item and of its creatives as bytes, so that a snapshot is but these side by side."""

    line: bytes
    flights: bytes = b""
    creatives: bytes = b""
    each_carries: bytes = b""
    carried: bytes = b""


_NO_ROW = _Row(np.zeros(1, _LINES).tobytes())


@dataclass(slots=True)
class Inventory:
    """The line items of all campaigns, for one writer."""

    tokens: Tokens = field(default_factory=Tokens)
    _lines: list[LineItem | None] = field(default_factory=list)
    _row_of: dict[str, int] = field(default_factory=dict)
    _rows_of: dict[str, set[int]] = field(default_factory=dict)
    _free: list[int] = field(default_factory=list)
    _room: int = _FEW_TOKENS
    _columns_of: dict[int, "_Row"] = field(default_factory=dict)
    _taken: House | None = None

    def put(self, campaign: Campaign) -> tuple[dict[int, LineItem], set[int]]:
        """Take over a campaign whole, in place of what it was; returns its rows, and rows that are no longer anybody's.

        A line item that was there before keeps its row.
        """
        before = self._rows_of.get(campaign.id, set())
        now = {line.key for line in campaign.line_items}
        gone = {row for row in before if (held := self._lines[row]) is not None and held.key not in now}
        self._drop(gone)
        rows = {self._row(line.key): line for line in campaign.line_items}
        for row, line in rows.items():
            self._lines[row] = line
            self._columns_of[row] = self._columns(line)
        self._rows_of[campaign.id] = set(rows)
        self._taken = None
        return rows, gone

    def stop(self, campaign_id: str) -> set[int]:
        """Take a campaign out; returns the rows that are no longer anybody's."""
        gone = self._rows_of.pop(campaign_id, set())
        self._drop(gone)
        self._taken = None
        return gone

    def snapshot(self) -> House:
        """The inventory as it is now; the same one while nothing changes. Some milliseconds for 10,000 line items."""
        if self._taken is None:
            self._taken = self._made()
        return self._taken

    def _row(self, key: str) -> int:
        if (row := self._row_of.get(key)) is None:
            if self._free:
                row = self._free.pop()
            else:
                row = len(self._lines)
                self._lines.append(None)
            self._row_of[key] = row
        return row

    def _drop(self, rows: Iterable[int]) -> None:
        for row in rows:
            if (line := self._lines[row]) is not None:
                del self._row_of[line.key]
            self._lines[row] = None
            self._columns_of.pop(row, None)
            self._free.append(row)

    def _renumber(self) -> None:
        """Give numbers anew where more than half of them are nobody's any more: snapshots keep those that they have."""
        columns = self._columns_of.values()
        carried_M = joined([row.carried for row in columns], np.dtype(np.int32))
        line_L = joined([row.line for row in columns], _LINES)
        used = len(np.unique(np.concatenate([carried_M, line_L["advertiser"], line_L["deal"][line_L["deal"] >= 0]])))
        if 2 * used < len(self.tokens):
            self.tokens = Tokens()
            self._columns_of = {row: self._columns(line) for row, line in enumerate(self._lines) if line}
        self._room = max(2 * used, _FEW_TOKENS)

    def _made(self) -> House:
        if len(self.tokens) > self._room:
            self._renumber()
        lines = tuple(self._lines)
        made = [self._columns_of.get(row, _NO_ROW) for row in range(len(lines))]
        flight_F2 = joined([row.flights for row in made], np.dtype(np.int64)).reshape(-1, 2)
        return House(
            rows=len(lines),
            lines=lines,
            line_L=joined([row.line for row in made], _LINES),
            flight_start_L1=starts([row.flights for row in made]) // _FLIGHT_BYTES,
            flight_F2=flight_F2,
            creative_start_L1=starts([row.creatives for row in made]) // _CREATIVES.itemsize,
            creative_N=joined([row.creatives for row in made], _CREATIVES),
            creatives=tuple(creative for line in lines if line for creative in line.creatives),
            carried_start_N1=np.append(0, np.cumsum(joined([row.each_carries for row in made], np.dtype(np.int64)))),
            carried_M=joined([row.carried for row in made], np.dtype(np.int32)),
            tokens=self.tokens,
            loss_T=np.array(self.tokens.losses, np.int16),
        )

    def _columns(self, line: LineItem) -> _Row:
        carried = [self.tokens.learn(carries(creative)) for creative in line.creatives]
        return _Row(
            np.array([self._line(line)], _LINES).tobytes(),
            np.array(line.flights, np.int64).tobytes(),
            np.array([_columns(creative) for creative in line.creatives], _CREATIVES).tobytes(),
            np.array([len(tokens) for tokens in carried], np.int64).tobytes(),
            np.array([token for tokens in carried for token in tokens], np.int32).tobytes(),
        )

    def _line(self, line: LineItem) -> tuple[Any, ...]:
        deal = line.deal
        return (
            xxhash.xxh64_intdigest(line.key.encode()),
            line.status is Status.active,
            line.type,
            line.priority,
            line.bid_type,
            line.rotation,
            line.bid_micros,
            self.tokens.learn([f"seat:{line.advertiser}"])[0],
            self.tokens.learn([f"deal:{deal.id}"])[0] if deal else -1,
            deal.at if deal else 0,
            deal.floor_micros if deal else 0,
        )


def carries(creative: Creative) -> list[str]:
    """What a creative can be blocked by, or must have: hosts and those above them, categories and theirs, its app.

    A block of `example.com` blocks `shop.example.com`, one of `IAB7` blocks `IAB7-39`, as in OpenRTB's first taxonomy;
    `cattax` is the taxonomy of its categories, `UNCATEGORISED` where there is none that a request could speak of.

    >>> carries(Creative(key="k", crid="c", approved=True, adomain=("a.b.com",), cat=("IAB7-39",), attr=(3,)))
    ['adv:a.b.com', 'adv:b.com', 'adv:com', 'cat:1:IAB7-39', 'cat:1:IAB7', 'cattax:1', 'attr:3']
    """
    hosts = [host.split(".") for host in creative.adomain]
    words = [f"adv:{'.'.join(labels[n:])}" for labels in hosts for n in range(len(labels))]
    for cat in creative.cat:
        words.append(f"cat:{creative.cattax}:{cat}")
        if creative.cattax == 1 and "-" in cat:
            words.append(f"cat:1:{cat.partition('-')[0]}")
    words.append(f"cattax:{creative.cattax if creative.cat and creative.cattax in TAXONOMIES else UNCATEGORISED}")
    words += [f"app:{creative.bundle}"] if creative.bundle else []
    words += [f"attr:{attr}" for attr in creative.attr]
    return words + [f"mime:{mime.casefold()}" for mime in creative.mimes]


def _columns(creative: Creative) -> tuple[Any, ...]:
    size = size_of(*creative.size) if creative.size else ANY_SIZE
    age = UNRATED_AGE if creative.age is None else creative.age
    known = FORMATS.index(creative.format) if creative.format in FORMATS else FORMATS.index("native")
    return creative.approved, known, size, creative.duration_s or 0, age, creative.weight, creative.sequence


class PerLine(Generic[T]):
    """What was worked out of each line item, kept for as long as its row holds the same line item; for one thread."""

    def __init__(self, make: Callable[[LineItem], T], nothing: T) -> None:
        self._make, self._nothing = make, nothing
        self._held: list[tuple[LineItem | None, T]] = []

    def of(self, lines: Sequence[LineItem | None]) -> list[T]:
        """Of line items by row, `nothing` where there is none: only of those that are new it is worked out."""
        held = [*self._held[: len(lines)], *[(None, self._nothing)] * (len(lines) - len(self._held))]
        for row in [row for row, (line, (old, _)) in enumerate(zip(lines, held, strict=True)) if line is not old]:
            line = lines[row]
            held[row] = line, self._make(line) if line else self._nothing
        self._held = held
        return [made for _, made in held]


def joined(parts: Iterable[bytes], dtype: np.dtype[Any]) -> NDArray[Any]:
    """The arrays of which these are the bytes, end to end."""
    return np.frombuffer(b"".join(parts), dtype).copy()


def starts(lists: Sequence[Sequence[object]]) -> NDArray[np.int64]:
    """Where each of P lists begins that follow each other, and where the last one ends. Shape (P + 1,)."""
    return np.append(0, np.cumsum(np.fromiter(map(len, lists), np.int64, len(lists))))


def running(house: House, now_ms: int) -> tuple[NDArray[np.uint64], int]:
    """Line items that have a flight that is not over yet: bit `row & 63` of word `row >> 6`; and until when that is so.

    Shape (W,), as `Targeting.match` has them. What has ended is nobody's candidate.
    """
    first_L, last_L = house.flight_start_L1[:-1], house.flight_start_L1[1:]
    end_L = np.zeros(len(first_L), np.int64)
    some = np.flatnonzero(last_L > first_L)
    end_L[some] = house.flight_F2[last_L[some] - 1, 1]
    runs_X = np.zeros(-(-len(end_L) // 64) * 64, np.bool_)
    runs_X[: len(end_L)] = end_L > now_ms
    until_ms = int(end_L[end_L > now_ms].min(initial=FOREVER_MS))
    return np.packbits(runs_X, bitorder="little").view(np.uint64), until_ms
