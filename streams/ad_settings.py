"""How ads are sold, as settings: currency and floors, how money is held, and which surfaces bring ads unasked.

>>> settings = Ads(currency="EUR", currencies=("EUR=1000000", "USD=1083412"), floors=("home;*=300000",))
>>> settings.rates().micros["USD"], settings.floor_table().of_requests(np.array([[0, -1]])).tolist()
(1083412, [300])
"""

import re
from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator, Field, model_validator

from ranking.ads.currencies import Currencies
from ranking.ads.floors import Floors, per_impression
from streams.ad_surfaces import SurfaceAds
from streams.half_lives import Group, Surface
from streams.secret_files import Secret

_RATE = re.compile(r"([A-Z]{3})=([0-9]{1,15})")
_FLOOR = re.compile(r"([^=]+)=([0-9]{1,15})")
_KIND = re.compile(r"[a-z_]{1,32}|cattax:[0-9]{1,3}|[0-9]{1,3}:[A-Za-z0-9._-]{1,32}")
FloorField = Literal["tagid", "surface", "format", "country", "devicetype"]


def _each(pattern: re.Pattern[str], words: str) -> AfterValidator:
    def checked(values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            if not pattern.fullmatch(value):
                raise ValueError(f"{value!r} is not {words}")
        return values

    return AfterValidator(checked)


def _rule(rule: str) -> dict[str, str]:
    return {"rule": f"a list as JSON of {rule}"}


_A_RATE, _A_FLOOR = "a rate such as USD=1083412", "a floor such as home;*=300000"
_A_KIND = "a kind such as alcohol, or a taxonomy's number and a category such as 1:IAB8-5"
Rates = Annotated[tuple[str, ...], _each(_RATE, _A_RATE), Field(json_schema_extra=_rule(_A_RATE))]
FloorRules = Annotated[tuple[str, ...], _each(_FLOOR, _A_FLOOR), Field(json_schema_extra=_rule(_A_FLOOR))]
SensitiveKinds = Annotated[tuple[str, ...], _each(_KIND, _A_KIND), Field(json_schema_extra=_rule(_A_KIND))]


class Ads(Group):
    """How ads are decided and paid for; without campaigns nothing of it costs anything."""

    currency: str = Field(default="USD", pattern="^[A-Z]{3}$")
    """The currency of auctions, floors and published prices."""
    currencies: Rates = ("USD=1000000",)
    """What one unit of the base is in each currency, in its micros; the base is the one with 1000000."""
    currencies_version: str = Field(default="1", min_length=1, max_length=64)
    """Names this table in every decision: give another one with other rates."""
    floor_fields: Annotated[tuple[FloorField, ...], Field(min_length=1, max_length=5)] = ("tagid", "country")
    """Of `tagid surface format country devicetype` those that floors go by; the earlier one counts more."""
    floors: FloorRules = ()
    """Micros per thousand impressions at least, by a value of each field, `*` for any, separated by `;`."""
    at: Literal["first_price", "second_price"] = "second_price"
    """How prices are found where a request does not say."""
    reservation_s: int = Field(default=900, ge=5, le=86_400)
    """How long a decision holds money for its billable event; after that it may be sold to somebody else."""
    billing_window_s: int = Field(default=2 * 86_400, ge=60, le=40 * 86_400)
    """A billable event this long after its decision is still paid for; later it is counted only."""
    chunk_s: float = Field(default=5, ge=1, le=300)
    """A worker holds as much of a budget as it is expected to spend in this time."""
    lease_s: float = Field(default=60, ge=10, le=600)
    """For so long it may spend that without a word from Redis; a worker that died holds it so long at most."""
    tick_s: float = Field(default=1, ge=0.1, le=5)
    """How often a worker looks at what was spent by all, and sets its pace."""
    max_candidates: int = Field(default=32, ge=1, le=10_000)
    """Most creatives of one auction that are looked at closely, beside those sold by number or by a deal."""
    near_share: float = Field(default=0.5, ge=0, le=1)
    """Share of them that are taken for being near the person; the others may bring most."""
    exploration: float = Field(default=0.5, ge=0, le=3)
    """How far from what is expected of it a creative that was never shown may bid: a standard deviation of log-odds."""
    allow_sensitive: SensitiveKinds = ()
    """Sensitive kinds of ads that are shown nevertheless, such as `alcohol`; categories such as `1:IAB8-5` too."""
    secret: Secret | None = None
    """Key of the hash that stands for people in the spend ledger, the same in every worker; without it, none."""
    surfaces: dict[Surface, SurfaceAds] = Field(default={})
    """By surface: those whose slates bring ads though no `imp` asks for them."""

    @model_validator(mode="after")
    def _fit_together(self) -> "Ads":
        if self.currency not in (rates := self.rates().micros):
            raise ValueError(f"currency {self.currency} is none of currencies, {', '.join(rates)}")
        if self.billing_window_s < self.reservation_s:
            raise ValueError(
                f"billing_window_s {self.billing_window_s} is less than reservation_s, {self.reservation_s}"
            )
        if self.lease_s < 2 * self.chunk_s:
            raise ValueError(f"lease_s {self.lease_s} is less than twice chunk_s, {self.chunk_s}")
        self.floor_table()
        return self

    def rates(self) -> Currencies:
        """The table of currencies.

        Raises:
            ValueError: none is the base, or a rate is 0.
        """
        pairs = [value.split("=") for value in self.currencies]
        return Currencies(version=self.currencies_version, micros={code: int(rate) for code, rate in pairs})

    def floor_table(self) -> Floors:
        """Floors in micros per impression of `currency`.

        Raises:
            ValueError: a rule has another number of values than there are fields.
        """
        pairs = [value.rsplit("=", 1) for value in self.floors]
        micros = per_impression(np.array([int(cpm) for _, cpm in pairs], np.int64)).tolist()
        return Floors.of(
            self.floor_fields, {tuple(where.split(";")): floor for (where, _), floor in zip(pairs, micros, strict=True)}
        )
