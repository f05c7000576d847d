"""Errors of this package, as facts.

RankingError
├── CampaignRefused  a field cannot be served: keep the campaign's previous version, dead-letter the record
│   └── TargetingRefused  a predicate cannot be used
├── UnknownCurrency  the table of rates lacks it: the line item does not bid, the floor does not hold
└── WeightsRefused   a tensor is missing, has another shape or holds a non-finite number: keep the ranker in use
"""


class RankingError(Exception):
    """Root of what this package raises on purpose."""


class UnknownCurrency(RankingError):
    """No rate is known. Whoever reads campaigns or requests refuses the record that names it."""


class WeightsRefused(RankingError):
    """Tensors of a ranker are missing, misshapen or non-finite; the ranker in use stays. No message is concerned."""


class CampaignRefused(RankingError):
    """A campaign says what cannot be served; its previous version stays. Its record is dead-lettered."""

    def __init__(self, field: str, value: object, allowed: str) -> None:
        said = repr(value)
        super().__init__(f"{field} is {said if len(said) <= 80 else said[:77] + '...'}; allowed: {allowed}")
        self.field, self.value, self.allowed = field, value, allowed


class TargetingRefused(CampaignRefused):
    """What a line item asks for cannot be used."""
