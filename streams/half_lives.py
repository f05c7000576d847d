"""How long counts last, as settings; and what a group of settings is."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from embeddings import fading

Surface = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")]
HalfLife = Annotated[float, Field(ge=60, le=10 * 365 * 86_400)]


class Group(BaseModel):
    """Settings that belong together: frozen, and without room for unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class HalfLives(Group):
    """How long counts last: seconds of event time after which one weighs half. Workers and learner need the same."""

    trending_s: HalfLife = 3 * 3_600
    """Takes, for what is trending."""
    short_s: HalfLife = 86_400
    """Takes, for the shortest popularity that the ranker sees."""
    mid_s: HalfLife = 7 * 86_400
    """Takes, for its middle popularity, and for what is popular."""
    long_s: HalfLife = 30 * 86_400
    """Takes, for its longest popularity."""
    reactions_s: HalfLife = 30 * 86_400
    """Likes, dislikes, impressions and clicks."""
    pairs_s: HalfLife = 30 * 86_400
    """What is taken together."""

    @property
    def counters(self) -> fading.HalfLives:
        """Those of counts of single items."""
        return fading.HalfLives(self.short_s, self.mid_s, self.long_s, self.trending_s, self.reactions_s)
