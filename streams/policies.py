"""What a surface is served by, as settings; `streams.serving.policies` fills in what is left unsaid."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from streams.half_lives import Group

SourceName = Literal["vector", "neighbours", "trending", "fresh", "popular", "begun"]
LanguageRule = Literal["any", "match"]


class Objectives(Group):
    """Weights of what a slate is optimised for."""

    next_item: float = Field(default=1, ge=0, le=100)
    """That the item is what the person takes next."""
    engage: float = Field(default=0, ge=0, le=100)
    """Calibrated probability of a click or play when shown."""
    complete: float = Field(default=0, ge=0, le=100)
    """Calibrated probability of watching to the end when shown."""


class SurfacePolicy(Group):
    """What differs on one surface; what is not set is as everywhere."""

    size: Annotated[int, Field(ge=1, le=200)] | None = None
    """Items in a slate; else `slates.size`."""
    candidates: Annotated[int, Field(ge=10, le=5_000)] | None = None
    """Items ranked for a slate; else `slates.candidates`."""
    sources: tuple[SourceName, ...] = ()
    """Which of `vector neighbours trending fresh popular begun` propose items; where none is named, all but `begun`."""
    repeats: bool | None = None
    """May what the person has seen be shown; else where `slates.repeat_surfaces` says so, or `begun` proposes."""
    age_limit: Annotated[int, Field(ge=0, le=99)] | None = None
    """Nothing rated above it is shown there, whoever looks."""
    language: LanguageRule | None = None
    """Whether languages are judged; else `slates.language`."""
    exploration: Annotated[float, Field(ge=0, le=0.5)] | None = None
    """Share of places that chance fills; else `slates.exploration`."""
    next_item: Annotated[float, Field(ge=0, le=100)] | None = None
    """Weight of this objective; else `slates.objectives.next_item`."""
    engage: Annotated[float, Field(ge=0, le=100)] | None = None
    """Weight of this objective; else `slates.objectives.engage`."""
    complete: Annotated[float, Field(ge=0, le=100)] | None = None
    """Weight of this objective; else `slates.objectives.complete`."""
    fatigue: Annotated[float, Field(ge=0, le=100)] | None = None
    """How fast what was shown without an answer sinks, 0 = not at all; else `slates.fatigue`."""


#: What surfaces of these names are served by where nothing else is set.
BUILT_IN = {"continue_watching": SurfacePolicy(sources=("begun",), exploration=0)}


def with_built_in(said: Mapping[str, SurfacePolicy]) -> dict[str, SurfacePolicy]:
    """The policies of a deployment over those that are built in."""
    own = {
        name: BUILT_IN[name].model_copy(update=policy.model_dump(exclude_unset=True)) if name in BUILT_IN else policy
        for name, policy in said.items()
    }
    return BUILT_IN | own
