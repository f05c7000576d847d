"""Policies: what the slates of a surface are made of and for. Chosen by what a slate answers, hashed into its name.

>>> policies = Policies.of(Settings())
>>> policies.on("home") is policies.on("anywhere else")
True
>>> policies.on("news").repeats, policies.on("continue_watching").sources
(True, ('begun',))
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self, get_args

import xxhash

from embeddings.eligibility import Viewer
from streams.policies import Objectives, SourceName, SurfacePolicy, with_built_in
from streams.settings import Settings

_UNSAID = {"language": "any", "exploration": 0}
"""What came later: a policy that does not say it is called as it was before."""
ALL_BUT_BEGUN = tuple(name for name in get_args(SourceName) if name != "begun")


@dataclass(frozen=True, slots=True)
class Policy:
    """What a slate is made of.

    Attributes:
        name: the surface it is for, `default` for all others.
        size: items in a slate that nobody said the size of; `candidates` those that are ranked.
        sources: names of `embeddings.candidates.Proposed` that may propose.
        repeats: may what was seen be shown?
        age_limit: the highest rating in years that is eligible; None is any.
        language: `match` where items must be in the viewer's language.
        exploration: share of places that show, by chance, what ranking would not have shown.
        next_item, engage, complete: weights of the objectives.
        fatigue: how fast what was shown without an answer sinks; 0 = not at all.
        hash: of all of the above.
    """

    name: str
    size: int
    candidates: int
    sources: tuple[str, ...]
    repeats: bool
    age_limit: int | None
    language: str
    exploration: float
    next_item: float
    engage: float
    complete: float
    fatigue: float
    hash: int = field(init=False, compare=False)

    def __post_init__(self) -> None:
        known = {name: getattr(self, name) for name in self.__slots__ if name != "hash"}
        known = {name: value for name, value in known.items() if value != _UNSAID.get(name)}
        object.__setattr__(self, "hash", xxhash.xxh32_intdigest(json.dumps(known, sort_keys=True).encode()))

    def __hash__(self) -> int:
        return self.hash

    @property
    def label(self) -> str:
        """What it is called in slates and traces."""
        return f"{self.name}-{self.hash:08x}"

    def viewer(self, viewer: Viewer) -> Viewer:
        """Who looks, as far as this policy judges it."""
        if self.language == "any" and viewer.language:
            viewer = viewer._replace(language="")
        if self.age_limit is None:
            return viewer
        return viewer._replace(limit=self.age_limit if viewer.limit is None else min(viewer.limit, self.age_limit))


@dataclass(frozen=True, slots=True)
class Policies:
    """The policy of each surface that has its own, and of all others."""

    default: Policy
    own: Mapping[str, Policy]

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """What the settings say."""
        said = with_built_in(settings.policies)
        surfaces = {*said, *settings.slates.repeat_surfaces}
        own = {surface: _policy(surface, said.get(surface, SurfacePolicy()), settings) for surface in surfaces}
        return cls(_policy("default", said.get("default", SurfacePolicy()), settings), own)

    def on(self, surface: str) -> Policy:
        """What a surface is served by."""
        return self.own.get(surface, self.default)

    @property
    def tire(self) -> bool:
        """Does what was shown without an answer sink anywhere?"""
        return any(policy.fatigue for policy in (self.default, *self.own.values()))


def _policy(surface: str, said: SurfacePolicy, settings: Settings) -> Policy:
    slates = settings.slates
    sources = said.sources or ALL_BUT_BEGUN
    repeats = surface in slates.repeat_surfaces or "begun" in sources
    weights: Objectives = slates.objectives
    return Policy(
        name=surface,
        size=said.size or slates.size,
        candidates=said.candidates or slates.candidates,
        sources=sources,
        repeats=repeats if said.repeats is None else said.repeats,
        age_limit=said.age_limit,
        language=said.language or slates.language,
        exploration=slates.exploration if said.exploration is None else said.exploration,
        next_item=weights.next_item if said.next_item is None else said.next_item,
        engage=weights.engage if said.engage is None else said.engage,
        complete=weights.complete if said.complete is None else said.complete,
        fatigue=slates.fatigue if said.fatigue is None else said.fatigue,
    )
