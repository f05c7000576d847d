"""What is told of items: a catalogue record, and counts."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from embeddings.content import words_of
from embeddings.item_columns import FOREVER_S


class ItemFacts(NamedTuple):
    """One catalogue record, as far as ranking needs it. Times are epoch seconds; `makers` are series and creators.

    `language` is a word that says what the item is like; `languages` are those (`eligibility.language_of`) in which it
    can be followed. `age` is from which it may be seen; 0 as well where it is not `rated`.
    """

    name: str
    title: str = ""
    categories: tuple[str, ...] = ()
    makers: tuple[str, ...] = ()
    language: str = ""
    year: int = 0
    available_from_s: int = 0
    available_until_s: int = FOREVER_S
    added_s: int = 0
    territories: tuple[str, ...] = ()
    surfaces: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    age: int = 0
    hidden: bool = False
    length_s: float = 0.0
    rated: bool = False

    def words(self) -> list[int]:
        """What it says of what the item is like (`embeddings.content`)."""
        return words_of(
            categories=self.categories,
            makers=self.makers,
            language=self.language,
            year=self.year,
            title=self.title,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemCounts:
    """Absolute counts of N items, faded to the event time `clock_s`, of the learner's life `epoch`.

    `events` is how many rows were counted by then. `popularity_N4` is `fading.HalfLives.popularity_4`.
    """

    item_N: NDArray[np.uint64]
    popularity_N4: NDArray[np.float32]
    likes_N: NDArray[np.float32]
    dislikes_N: NDArray[np.float32]
    shown_N: NDArray[np.float32]
    clicked_N: NDArray[np.float32]
    last_taken_s_N: NDArray[np.int64]
    first_seen_s_N: NDArray[np.int64]
    clock_s: int
    epoch: int = 0
    events: float = 0.0
