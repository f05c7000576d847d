"""Errors of this package, as facts.

RankingError
└── WeightsRefused   a tensor is missing, has another shape or holds a non-finite number: keep the ranker in use
"""


class RankingError(Exception):
    """Root of what this package raises on purpose."""


class WeightsRefused(RankingError):
    """Tensors of a ranker are missing, misshapen or non-finite; the ranker in use stays. No message is concerned."""
