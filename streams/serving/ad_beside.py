"""What decisions need to know of a house of campaigns beside its columns, worked out by whoever reads campaigns."""

import threading
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ranking.ads.campaigns import LineItem
from ranking.ads.gates import sensitivity
from ranking.ads.inventory import House, PerLine, joined
from ranking.ads.separation import KindBook, Kinds
from streams.serving.ad_pages import risks_of


class Beside(NamedTuple):
    """What is worked out once for a house: which creatives are sensitive, of which kinds, and how risky neighbours."""

    house: House
    sensitive_N: NDArray[np.bool_]
    kinds: Kinds
    risk_of: Mapping[str, int]


class BesideHouse:
    """Beside the house that there is now, for all threads that decide: a change costs little more than what changed.

    Args:
        allowed: sensitive kinds that may be shown: `ads.allow_sensitive`.

    Raises:
        ValueError: a word that is none; the message says what is allowed.
    """

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        is_off = sensitivity(allowed)

        def off(line: LineItem) -> bytes:
            return np.fromiter(map(is_off, line.creatives), np.bool_).tobytes()

        self._off, self._kinds = PerLine(off, b""), KindBook()
        self._lock = threading.Lock()
        self._now: Beside | None = None

    def of(self, house: House) -> Beside:
        """Worked out where the house is another one than at the last call."""
        with self._lock:
            if self._now is None or self._now.house is not house:
                off_N = joined(self._off.of(house.lines), np.dtype(np.bool_))
                self._now = Beside(house, off_N, self._kinds.of(house), risks_of(house))
            return self._now
