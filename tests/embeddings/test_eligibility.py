"""Who may be shown what, by the limits of items and what a viewer says."""

import numpy as np
import pytest

from embeddings.eligibility import Viewer, ViewerClass, Words, age_of
from embeddings.items import ItemFacts, Items


def shown(items: Items, viewer: Viewer) -> str:
    barred_N = items.barred(items.blocked(100), items.class_of(viewer))
    return "".join(items.names[row] for row in np.flatnonzero(~barred_N))


def some_items() -> Items:
    items = Items()
    items.add(
        [
            ItemFacts(name="a"),
            ItemFacts(name="d", territories=("DE", "AT")),
            ItemFacts(name="f", territories=("fr",)),
            ItemFacts(name="h", hidden=True),
            ItemFacts(name="r", age=16),
            ItemFacts(name="t", surfaces=("tv",)),
            ItemFacts(name="u", age=255),
        ]
    )
    return items


@pytest.mark.parametrize(
    ("viewer", "names"),
    [
        (Viewer(), "adfrtu"),
        (Viewer("de"), "adrtu"),
        (Viewer("FR"), "afrtu"),
        (Viewer("JP"), "artu"),
        (Viewer(limit=12), "adft"),
        (Viewer(limit=16), "adfrt"),
        (Viewer(limit=1000), "adfrt"),
        (Viewer(surface="tv"), "adfrtu"),
        (Viewer(surface="home"), "adfru"),
        (Viewer("AT", 6, "home"), "ad"),
    ],
)
def test_a_limit_that_is_not_stated_admits_everybody(viewer: Viewer, names: str) -> None:
    assert shown(some_items(), viewer) == names


def test_viewers_whom_no_item_tells_apart_are_of_one_class() -> None:
    items = Items()
    items.add([ItemFacts(name="a")])
    assert {items.class_of(Viewer(c, n, s)) for c in ("", "DE") for n in (None, 6) for s in ("", "tv")} == {
        ViewerClass()
    }
    assert some_items().class_of(Viewer("JP")) == some_items().class_of(Viewer("BR"))


def test_more_words_than_there_are_bits_admit_nobody_by_mistake() -> None:
    items = Items()
    items.add([ItemFacts(name=f"i{n}", territories=(f"c{n}",)) for n in range(300)])
    assert [shown(items, Viewer(f"c{n}")) for n in (0, 255, 256, 299)] == ["i0", "i255", "", ""]


@pytest.mark.parametrize(
    ("rating", "age"),
    [
        (None, 0),
        ("", 0),
        ("16", 16),
        ("FSK 12", 12),
        ("18+", 18),
        ("PG-13", 13),
        ("TV-MA", 17),
        ("?", 255),
        ("1 2", 255),
    ],
)
def test_a_rating_is_an_age(rating: str | None, age: int) -> None:
    assert age_of(rating) == age


def test_limits_of_many_items_are_those_of_each() -> None:
    stated = [("DE",), (), ("fr", "DE"), ("DE",), tuple(f"c{n}" for n in range(300)), ()]
    together, apart = Words(), Words()
    np.testing.assert_array_equal(together.limits_of(stated), np.stack([apart.limits(words) for words in stated]))
    assert together.limits_of([]).shape == (0, 4)
