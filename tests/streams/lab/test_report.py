from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from streams.contract.records import Slate, SlateItem
from streams.lab.baselines import MISS, NOT_SCORED
from streams.lab.demo import DemoRun, Judge
from streams.lab.report import person, render
from tests.streams.builders import a_table

LOG = a_table(40, users=4, items=10)


def a_run() -> DemoRun:
    """A demo in which every event was answered, in its order, with the first five items there are."""
    run = DemoRun(LOG, broker="Test <broker>")
    judge = Judge(run)
    for r in range(len(LOG)):
        judge.sent(r, 0, r)
        assert judge.judge(a_slate(r, *sorted(LOG.items)[:5]), arrived_s=0.1 * r)
    run.seconds = 4.0
    return run


def a_slate(offset: int, *items: str) -> Slate:
    places = tuple(
        SlateItem(
            item_id=item, position=n, score=0.5, source="vector", reasons=(f"similar_to_recent:{item}", "popular")
        )
        for n, item in enumerate(items)
    )
    return Slate(
        slate_id=f"s{offset}", user_id=LOG.user_R[offset], items=places, partition=0, offset=offset, ranked=True
    )


def test_an_event_is_judged_by_the_slate_before_it() -> None:
    run = a_run()
    first = {user: LOG.user_R.index(user) for user in set(LOG.user_R)}
    shown = sorted(LOG.items)[:5]
    seen: set[tuple[str, str]] = set()
    for r, event in enumerate(zip(LOG.user_R, LOG.item_R, strict=True)):
        expected = shown.index(event[1]) if event[1] in shown else MISS
        expected = NOT_SCORED if event in seen else MISS if r in first.values() else expected
        assert run.rank_R[r] == expected
        seen.add(event)
    assert run.slates == run.ranked == 40
    assert run.hits == ((run.rank_R >= 0) & (run.rank_R < 10)).sum()


def test_a_slate_published_twice_is_judged_once() -> None:
    run = a_run()
    judge = Judge(DemoRun(LOG))
    judge.sent(0, 0, 0)
    assert judge.judge(a_slate(0), 1.0)
    assert not judge.judge(a_slate(0), 2.0)
    assert not judge.judge(a_slate(5), 2.0), "nobody asked for it yet"
    assert run.latency_ms(50) >= 0


def test_the_page_is_whole_and_needs_nothing_else(tmp_path: Path) -> None:
    path = render(a_run(), tmp_path / "new")
    page = path.read_text(encoding="utf-8")
    assert path.name == "index.html"
    assert page.count("<svg") == page.count("</svg>") >= 3
    assert "Test &lt;broker&gt;" in page
    assert not any(word in page for word in ('src="http', 'href="http', "undefined", "nan"))
    balanced = Balanced()
    balanced.feed(page)
    assert not balanced.open


class Balanced(HTMLParser):
    """Keeps the tags that were not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in {"meta", "br", "path", "use", "rect", "circle", "html"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            assert self.open.pop() == tag


def test_a_person_is_told_in_titles() -> None:
    run = a_run()
    who = person(run)
    mine = [item for user, item in zip(LOG.user_R, LOG.item_R, strict=True) if user == who.user]
    assert who.user == LOG.user_R[-1]
    assert who.taken == len(mine)
    assert who.history[0].startswith(mine[-1].upper())
    assert sorted(LOG.items)[0].upper() in who.slate[0].why
    assert "popular" in who.slate[0].why


def test_before_the_first_slate_there_is_no_latency() -> None:
    assert np.isnan(DemoRun(LOG).latency_ms(50))


@pytest.fixture(autouse=True)
def no_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
