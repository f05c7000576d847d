"""A catalogue that turns over for years: what is served is what a worker serves that knows of today's items only."""

import functools
import threading
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from embeddings import turnover
from embeddings.ids import item_id, item_ids
from embeddings.index import build_index
from embeddings.item_columns import Columns
from embeddings.items import ItemCounts, ItemFacts, Items
from embeddings.snapshots import Snapshot
from streams.lab.synthetic import taught
from streams.serving.ad_scoring import AdScorer
from streams.serving.live_model import LiveModel, Serving
from streams.serving.pipeline import Answer
from tests.streams.builders import NOW_MS, Service, a_request, an_event, shown, slates_of, small
from tests.streams.serving.ad_world import a_creative, a_house, a_line

HOURS_MS = 2 * 3_600_000
ranker = functools.cache(lambda: taught(0).tensors())


def vectors(names: list[str], version: int) -> NDArray[np.float32]:
    return np.sin(item_ids(names)[:, None] % np.uint64(99_991) * np.arange(1, 9) + version).astype(np.float32)


@dataclass
class Years:
    """Each generation `size` items come and those of two generations before go, with their counts and vectors."""

    size: int
    service: Service = field(default_factory=lambda: Service(small(slates={"size": 20, "candidates": 60})))
    generation: int = 0
    offset: int = 0
    new: list[ItemFacts] = field(default_factory=list)
    old: list[ItemFacts] = field(default_factory=list)

    def names(self, generation: int) -> list[str]:
        return [f"g{generation}-{n}" for n in range(self.size)] if generation > 0 else []

    @property
    def alive(self) -> list[str]:
        return self.names(self.generation - 1) + self.names(self.generation)

    def facts(self, names: list[str]) -> list[ItemFacts]:
        numbers = [int(name.partition("-")[2]) + len(name) for name in names]
        return [
            ItemFacts(
                name=name, title=f"The {name}", categories=(f"c{n % 7}", f"d{n % 5}"), year=1990 + n % 30,
                added_s=1, available_from_s=1 + self.service.now_ms // 1000 - 86_400 - n, length_s=60 + n,
            )
            for name, n in zip(names, numbers, strict=True)
        ]  # fmt: skip

    def counts(self, names: list[str], takes: float = 1) -> ItemCounts:
        clock_s = self.service.now_ms // 1000
        draw = np.random.default_rng(self.generation)
        takes_N = (takes * (1 + 99 * draw.random(len(names)))).astype(np.float32)
        times_N = np.full(len(names), clock_s - 60 if takes else 0)
        return ItemCounts(
            item_N=item_ids(names), popularity_N4=np.repeat(takes_N[:, None], 4, 1), likes_N=takes_N,
            dislikes_N=takes_N, shown_N=takes_N, clicked_N=takes_N, last_taken_s_N=times_N, first_seen_s_N=times_N,
            clock_s=clock_s,
        )  # fmt: skip

    def snapshot(self) -> Snapshot:
        names, count = self.alive, len(self.alive)
        draw = np.random.default_rng(self.generation)
        return Snapshot(
            version=self.generation, ids_N=item_ids(names), names=names,
            source_ND=vectors(names, self.generation), target_ND=vectors(names, self.generation),
            neighbours_NK=draw.integers(0, count, (count, 10), np.int32),
            weights_NK=np.sort(draw.random((count, 10), np.float32))[:, ::-1].copy(),
            counts_N=np.ones(count, np.float32), ranker=ranker(), created_ms=self.service.now_ms,
        )  # fmt: skip

    def turn(self) -> None:
        """The next generation comes; people take its items and name others that no catalogue has."""
        self.generation += 1
        self.service.now_ms += HOURS_MS
        serving, gone = self.service.serving, self.names(self.generation - 2)
        self.old, self.new = self.new, self.facts(self.names(self.generation))
        serving.catalogue(self.new, gone)
        serving.count(self.counts(self.alive), self.alive)
        if gone:
            serving.count(self.counts(gone, takes=0), gone)
        serving.swap(self.snapshot())
        self.service.deliver([self.event() for _ in range(40)])
        serving.turn_over()
        serving.turn_over()

    def event(self) -> object:
        self.offset += 1
        draw = np.random.default_rng(self.offset)
        item = self.alive[int(len(self.alive) * draw.random() ** 2)] if self.offset % 4 else f"unheard-{self.offset}"
        when_ms = self.service.now_ms - 1_000_000 + self.offset
        return an_event(self.offset, f"u{draw.integers(9)}", item, event_time=when_ms)

    def anew(self) -> Service:
        """A worker that was started now."""
        other = Service(self.service.settings, now_ms=self.service.now_ms)
        items = Items(half_lives=other.settings.half_lives.counters, catalogue_unread=True)
        other.serving = Serving(items, build_index, LiveModel.empty(items, build_index, 8), now_s=self.now_s)
        other.answerer.scorer.serving = other.serving
        other.serving.catalogue(self.old + self.new, [])
        items.catalogue_read()
        other.serving.count(self.counts(self.alive), self.alive)
        other.serving.swap(self.snapshot())
        other.answerer.users = self.service.users
        return other

    def now_s(self) -> int:
        return self.service.now_ms // 1000


def slates(service: Service) -> list[list[tuple[str, float, str | None]]]:
    asked = service.ask(*(a_request(n, f"u{n}") for n in range(12)))
    return [[(item.item_id, round(item.score, 4), item.because) for item in slate.items] for slate in asked]


def assert_rows_alike(one: Serving, other: Serving, names: list[str]) -> None:
    """What each knows of some items, and of nothing else."""
    rows_R, rows_S = (serving.items.ids.rows(item_ids(names)) for serving in (one, other))
    for name in Columns.__annotations__.keys() - {"used_s_N", "categories_NC"}:
        column_R, column_S = (getattr(s.items.columns, name)[rows] for s, rows in ((one, rows_R), (other, rows_S)))
        np.testing.assert_array_equal(column_R, column_S, name)
    for what in ("names", "titles"):
        said = [[getattr(s.items, what)[r] for r in rows.tolist()] for s, rows in ((one, rows_R), (other, rows_S))]
        assert said[0] == said[1]
    np.testing.assert_array_equal(one.live.target_ND[rows_R], other.live.target_ND[rows_S])
    beside = np.setdiff1d(np.arange(len(one.live.target_ND)), rows_R)
    assert not one.live.target_ND[beside].any()


def test_years_of_turnover_serve_what_a_worker_serves_that_was_started_today() -> None:
    years = Years(300)
    for _ in range(6):
        years.turn()
    other = years.anew()
    assert len(years.service.serving.items) <= 4 * years.size
    assert slates(years.service) == slates(other)
    assert all(len(slate) == 20 for slate in slates(other))
    assert_rows_alike(years.service.serving, other.serving, years.alive)


@pytest.mark.slow
def test_three_years_of_turnover_under_load_leave_the_table_as_it_was() -> None:
    years, stop, faults, answered = Years(2_000), threading.Event(), list[BaseException](), [0]
    years.turn()
    service, other = years.service, Service(years.service.settings)
    other.recommender.scorer.serving = service.serving

    def answer() -> None:
        kept = list[Answer]()
        try:
            while not stop.is_set():
                alive = {years.generation + n for n in range(-3, 3)}
                events = [an_event(8 * answered[0] + n, f"u{n}", f"never-{answered[0]}-{n}") for n in range(8)]
                kept = [other.respond(events), *kept][:3]
                for each in kept:
                    assert_whole(each, service.serving.items)
                for slate in slates_of(kept[0]):
                    assert {int(item.item_id[1:].partition("-")[0]) for item in slate.items} <= alive
                    assert len(slate.items) == 20
                answered[0] += 1
        except BaseException as fault:
            faults.append(fault)

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        for _ in range(50):
            years.turn()
    finally:
        stop.set()
        thread.join()
    assert not faults
    assert answered[0] > 50
    assert len(service.serving.items) <= 4 * years.size
    for _ in range(2):
        service.serving.turn_over()
    fresh = years.anew()
    assert slates(service) == slates(fresh)
    assert_rows_alike(service.serving, fresh.serving, years.alive)


def assert_whole(answer: Answer, items: Items) -> None:
    """The rows that an answer holds are those of its items, whatever went since."""
    for slate, row_N in zip(answer.slates, answer.scored.slates.row_QN, strict=True):
        there_N = row_N >= 0
        assert items.ids.ids_N[row_N[there_N]].tolist() == slate.item_N[there_N].tolist()
        assert [items.names[row] for row in row_N[there_N]] == shown(slates_of(answer)[answer.slates.index(slate)])


def test_an_answer_that_waits_for_the_broker_teaches_its_own_items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turnover, "_LEAST", 1)
    years = Years(30)
    for _ in range(2):
        years.turn()
    service = years.service
    answer = service.respond([an_event(900, "u1", years.alive[0])])
    rows = len(service.serving.items)
    for _ in range(3):
        years.turn()
        assert_whole(answer, service.serving.items)
    assert len(service.serving.items) == rows + 3 * years.size, "no row is free while it waits"
    service.recommender.tell(answer)
    del answer
    service.serving.turn_over()
    years.turn()
    assert len(service.serving.items) == rows + 3 * years.size


def test_what_else_holds_rows_keeps_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turnover, "_LEAST", 1)
    years = Years(30)
    years.turn()
    serving = years.service.serving
    held = serving.items.ids.rows(item_ids(years.names(1)[:5]))
    serving.holders.append(lambda: held)
    for _ in range(4):
        years.turn()
    assert serving.items.ids.rows(item_ids(years.names(1))).tolist() == [*held.tolist(), *[-1] * 25]


def test_the_item_that_an_ad_is_about_keeps_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turnover, "_LEAST", 1)
    years = Years(30)
    years.turn()
    serving = years.service.serving
    scorer = AdScorer(serving, years.service.settings)
    creative = a_creative("a", item_id="g1-0")
    for _ in range(4):
        creatives = scorer.prepare(a_house(a_line("x", creative)))
        years.turn()
    assert serving.items.ids.rows(item_ids(["g1-0", "g1-1"])).tolist() == [creatives.rows.landing_N[0], -1]
    scorer.prepare(a_house(a_line("x", a_creative("a", item_id=years.alive[0]))))
    years.turn()
    assert serving.items.ids.rows(item_ids(["g1-0"])).tolist() == [-1]


def test_without_a_learner_or_catalogue_rows_are_bounded_and_newcomers_are_offered() -> None:
    service = Service(small(slates={"size": 5, "candidates": 20}))
    items = service.serving.items
    service.serving = Serving(items, build_index, service.serving.live, now_s=lambda: NOW_MS // 1000, strangers=300)
    service.recommender.scorer.serving = service.serving
    for turn in range(8):
        names = [f"t{turn}-{n}" for n in range(700)]
        service.serving.hear({item_id(name): name for name in names})
        service.serving.turn_over()
        (slate,) = slates_of(service.respond([an_event(turn, "ann", f"t{turn}-0")]))
        assert len(slate.items) == 5
    assert len(items) <= 2 * 300 + 300
    assert items.ids.held <= 600
