"""What a surface's slates may carry of ads where it opted in, as settings; a surface that did not carries none unasked.

>>> SurfaceAds(show_rate=0.3, unfilled="collapse").room(20)
5
"""

from typing import Annotated, Literal

from pydantic import Field

from streams.half_lives import Group

Format = Literal["banner", "video", "audio", "native"]


class SurfaceAds(Group):
    """How organic items and ads share the pages of one surface, and how often such a page is looked at."""

    show_rate: float = Field(gt=0, le=1)
    """Share of ads on slates that nobody asked for which are shown in the end: so much of a price is reserved."""
    asked_show_rate: float = Field(default=1, gt=0, le=1)
    """The same of slates that a request asked for."""
    ad_load_max: float = Field(default=0.25, ge=0, le=1)
    """Largest share of the places of a page that are ads."""
    first_slot: int = Field(default=2, ge=1, le=200)
    """The first place of a page that may be an ad; 1 is the top."""
    min_gap: int = Field(default=3, ge=0, le=200)
    """Organic items between two ads, at least."""
    revenue_weight: float = Field(default=10, ge=0, le=1_000_000)
    """λ: what a unit of money weighs beside organic value; with 10, what brings .005 is as good as a chance of .05."""
    unfilled: Literal["organic", "collapse"] = "organic"
    """Where a place that could be an ad is none: an organic item stands there, or the page is shorter."""
    show_within_s: int = Field(default=300, ge=5, le=86_400)
    """How long a slate's ads are held for it; what is shown later is still paid for."""
    floor_micros: int = Field(default=0, ge=0, le=10**12)
    """What an ad there brings at least, micros of `ads.currency` per thousand; beside `ads.floors`."""
    tagid: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """The placement, for targeting and floors; else the surface's name."""
    formats: tuple[Format, ...] = ()
    """Of `banner video audio native` those that fit there; any where none is named."""

    def room(self, places: int) -> int:
        """The most ads that its rules let stand on a page of so many places."""
        load = int(self.ad_load_max * places + 1e-9)
        return max(min(load, 1 + (places - self.first_slot) // (self.min_gap + 1)), 0) if places else 0
