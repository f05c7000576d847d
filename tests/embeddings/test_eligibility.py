"""Who may be shown what, by the limits of items and what a viewer says."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embeddings.eligibility import Viewer, ViewerClass, Words, age_of, language_of
from embeddings.items import ItemFacts, Items
from tests.fuzzing import thorough


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
            ItemFacts(name="l", languages=("de", "pt")),
            ItemFacts(name="r", age=16),
            ItemFacts(name="t", surfaces=("tv",)),
            ItemFacts(name="u", age=255),
        ]
    )
    return items


@pytest.mark.parametrize(
    ("viewer", "names"),
    [
        (Viewer(), "adflrtu"),
        (Viewer("de"), "adlrtu"),
        (Viewer("FR"), "aflrtu"),
        (Viewer("JP"), "alrtu"),
        (Viewer(limit=12), "adflt"),
        (Viewer(limit=16), "adflrt"),
        (Viewer(limit=1000), "adflrt"),
        (Viewer(surface="tv"), "adflrtu"),
        (Viewer(surface="home"), "adflru"),
        (Viewer(language="pt"), "adflrtu"),
        (Viewer(language="fr"), "adfrtu"),
        (Viewer("AT", 6, "home"), "adl"),
        (Viewer("AT", 6, "home", "fr"), "ad"),
    ],
)
def test_a_limit_that_is_not_stated_admits_everybody(viewer: Viewer, names: str) -> None:
    assert shown(some_items(), viewer) == names


def test_viewers_whom_no_item_tells_apart_are_of_one_class() -> None:
    items = Items()
    items.add([ItemFacts(name="a")])
    everybody = product(("", "DE"), (None, 6), ("", "tv"), ("", "de"))
    assert {items.class_of(Viewer(*said)) for said in everybody} == {ViewerClass()}
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


@pytest.mark.parametrize(
    ("tag", "language"),
    [
        *((None, ""), ("", ""), ("de", "de"), ("DE", "de"), ("pt-BR", "pt"), ("zh-Hant-TW", "zh"), ("deu", "deu")),
        *(("de_DE", "de"), (" en ", "en"), ("iw", "he"), ("in-ID", "id"), ("und", ""), ("zxx", ""), ("mul", "")),
        *(("German", ""), ("d", ""), ("x-klingon", ""), ("*", ""), ("de,en;q=0.5", ""), ("dé", "")),
    ],
)
def test_a_tag_says_a_language(tag: str | None, language: str) -> None:
    assert language_of(tag) == language


def words(*known: str) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(known), max_size=3).map(tuple)


FACTS = st.builds(
    lambda **said: ItemFacts(name="", **said),
    territories=words("DE", "fr", "JP"),
    surfaces=words("tv", "Home"),
    languages=words("de", "en", "pt"),
    age=st.sampled_from([0, 6, 16, 255]),
    hidden=st.booleans(),
    available_from_s=st.sampled_from([0, 50, 100, 101]),
    available_until_s=st.sampled_from([99, 100, 101, 1 << 40]),
)
VIEWERS = st.builds(
    Viewer,
    st.sampled_from(["", "de", "FR", "BR"]),
    st.sampled_from([None, 5, 6, 18, 300]),
    st.sampled_from(["", "tv", "home", "news"]),
    st.sampled_from(["", "de", "en", "sw"]),
)


def may_see(item: ItemFacts, viewer: Viewer) -> bool:
    """The rule as the contract says it, at second 100."""

    def stated(limits: tuple[str, ...], word: str) -> bool:
        return not limits or not word or word.lower() in [limit.lower() for limit in limits]

    said = (item.territories, viewer.country), (item.surfaces, viewer.surface), (item.languages, viewer.language)
    old_enough = viewer.limit is None or item.age <= min(viewer.limit, 254)
    there = item.available_from_s <= 100 < item.available_until_s and not item.hidden
    return there and old_enough and all(stated(*each) for each in said)


@given(st.lists(FACTS, min_size=1, max_size=8), st.lists(VIEWERS, min_size=1, max_size=4))
@thorough(200)
def test_the_mask_is_the_rule(facts: list[ItemFacts], viewers: list[Viewer]) -> None:
    items, named = Items(), [item._replace(name=str(n)) for n, item in enumerate(facts)]
    items.add(named)
    for viewer in viewers:
        assert shown(items, viewer) == "".join(item.name for item in named if may_see(item, viewer))
