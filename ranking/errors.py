"""Errors of this package, as facts.

RankingError
├── UnknownCurrency  the table of rates lacks it: the line item does not bid, the floor does not hold
└── WeightsRefused   a tensor is missing, has another shape or holds a non-finite number: keep the ranker in use
"""


class RankingError(Exception):
    """Root of what this package raises on purpose."""


class UnknownCurrency(RankingError):
    """No rate is known. Whoever reads campaigns or requests refuses the record that names it."""


class WeightsRefused(RankingError):
    """Tensors of a ranker are missing, misshapen or non-finite; the ranker in use stays. No message is concerned."""
