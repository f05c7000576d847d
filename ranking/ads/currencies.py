"""Money of several currencies in one auction: a table of rates with a version, and whole micros on both sides."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, gcd

import numpy as np
from numpy.typing import NDArray

from ranking.errors import UnknownCurrency


@dataclass(frozen=True, slots=True, kw_only=True)
class Currencies:
    """What one unit of the base is in each currency, in micros of that currency; the base itself is 1,000,000.

    `version` goes into the record of a decision, so that its prices can be worked out again.

    >>> table = Currencies(version="2026-11-27", micros={"EUR": 1_000_000, "USD": 1_083_412, "JPY": 163_250_000})
    >>> table.convert(np.array([2_000_000]), "EUR", "USD").tolist()
    [2166824]

    Raises:
        ValueError: a rate is not a positive whole number, or none is the base.
    """

    version: str
    micros: Mapping[str, int]

    def __post_init__(self) -> None:
        for code, rate in self.micros.items():
            if not isinstance(rate, int) or rate <= 0:
                raise ValueError(f"currencies.{code} = {rate!r}: micros per unit of the base, a whole number above 0")
        if 1_000_000 not in self.micros.values():
            raise ValueError(f"currencies of version {self.version!r}: none is 1000000, so there is no base")

    def convert(self, micros_N: NDArray[np.int64], source: str, target: str, *, up: bool = False) -> NDArray[np.int64]:
        """Whole micros of another currency, exact before one rounding.

        A bid is rounded down, which is the default: nobody bids more than they said. A floor is rounded `up`: nobody
        sells for less. The same currency on both sides changes nothing.

        Raises:
            UnknownCurrency: the table lacks one; the line item does not bid, the request has no such floor.
            OverflowError: an amount does not fit 64 bits in the other currency.
        """
        from_rate, to_rate = self._rate(source), self._rate(target)
        shared = gcd(from_rate, to_rate)
        exact_N = micros_N.astype(object) * (to_rate // shared)  # Python's integers: a product may need 100 bits
        divisor = from_rate // shared
        whole_N = -((-exact_N) // divisor) if up else exact_N // divisor
        return np.asarray(whole_N).astype(np.int64)

    def least(self, amount: Fraction, source: str, target: str) -> int:
        """The fewest whole micros of another currency that are worth at least an exact amount of micros.

        >>> table = Currencies(version="2026-11-27", micros={"EUR": 1_000_000, "USD": 1_083_412})
        >>> table.least(Fraction(1, 3), "EUR", "USD"), table.least(Fraction(1, 3), "CHF", "CHF")
        (1, 1)

        Raises:
            UnknownCurrency: the table lacks one of two different ones.
        """
        if source != target:
            amount = amount * self._rate(target) / self._rate(source)
        return ceil(amount)

    def _rate(self, code: str) -> int:
        if code not in self.micros:
            raise UnknownCurrency(f"currency {code!r} is none of {', '.join(sorted(self.micros))} ({self.version})")
        return self.micros[code]
