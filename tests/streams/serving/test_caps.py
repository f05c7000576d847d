"""Caps in a closed loop: decided by what states and ledger say, reserved, shown, folded; and never exceeded."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pytest

from embeddings.events import AD_FORMS, Action, EventBatch, Source
from embeddings.exposures import AdSeen, fold_exposures
from embeddings.fold import fold
from embeddings.memory import MemoryUserStore
from embeddings.spend import UNLIMITED, Billable, InFlight, Reservation, Room, Verdict, Want, Window
from embeddings.spend_memory import MemorySpendLedger
from embeddings.store import Profiles, advance
from ranking.ads.campaigns import Cap, Level, LineItem, Unit
from ranking.ads.caps import Caps, capped, creatives_left, rooms
from ranking.ads.exposed import SESSION_S, Exposures, Out, People
from ranking.ads.selection import Fits
from tests.embeddings.batches import LATENESS_S, SOURCES, a_batch, an_event
from tests.embeddings.oracle import Event
from tests.embeddings.spending import opened
from tests.ranking.ads.test_caps import a_cap, lines_of

START_S, EXPIRES_S, DAY = 1_800_000_000, 900, 86_400
UNBOUND = Window("all")


class Decision(NamedTuple):
    """An ad that was sold for a person, what it is counted by, and which of that the ledger was told."""

    id: str
    person: str
    row: int
    names: tuple[str, ...]
    levels: tuple[int, ...]
    told: frozenset[int]
    until_s: int


@dataclass
class Life:
    """What a person truly saw and did."""

    saw: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)
    last_s: int = 0
    session_s: int = 0

    def did(self, time_s: int) -> None:
        if time_s >= self.last_s + SESSION_S:
            self.session_s = time_s
        self.last_s = max(self.last_s, time_s)


@dataclass
class World:
    """One store, one ledger, people who ask and see, and whoever changes caps."""

    lines: list[LineItem | None]
    seed: int = 0
    now_s: int = START_S
    out: list[Decision] = field(default_factory=list)
    lives: dict[str, Life] = field(default_factory=lambda: {"ann": Life(), "bob": Life()})
    sold: int = 0
    offset: int = 0

    def __post_init__(self) -> None:
        self.draw = random.Random(self.seed)
        self.store, self.ledger = MemoryUserStore(width=4), opened(MemorySpendLedger(), (UNBOUND, UNLIMITED))
        self.store.claim(SOURCES)
        self.edit(self.lines)

    def edit(self, lines: list[LineItem | None]) -> None:
        self.lines, self.caps = lines, Caps.of(lines)

    def look(self, person: str) -> tuple[People, str]:
        """What a worker reads: first what is in flight, then the state."""
        (flight,) = self.ledger.in_flight([person])
        return self.people(self.store.read([person]), flight), flight.version

    def people(self, profiles: Profiles, flight: InFlight, known: bool = True) -> People:
        exposures, now_s_P = Exposures._make(profiles.exposures), np.array([self.now_s])
        return People(exposures, Out.of([flight.out]), profiles.states.last_s_U, now_s_P, np.array([known]))

    def offered(self, people: People) -> list[tuple[int, int]]:
        """Line items and creatives that no cap keeps from a person."""
        rows = [row for row, line in enumerate(self.lines) if line]
        start_P1, row_M = np.array([0, len(rows)]), np.array(rows, np.int32)
        all_N = np.arange(2 * len(rows), dtype=np.int32)
        fits = Fits(capped(self.caps, people, start_P1, row_M), np.arange(len(rows) + 1) * 2, all_N)
        left = creatives_left(self.caps, people, start_P1, row_M, fits)
        spans = zip(rows, left.code_M.tolist(), left.start_M1.tolist(), left.start_M1.tolist()[1:], strict=False)
        return [(row, n) for row, code, a, b in spans if not code for n in left.creative_N[a:b].tolist()]

    def sell(self, person: str, seen: tuple[People, str], slots: int = 1) -> list[Decision]:
        """Reserve some of what a worker may offer by what it has read."""
        (people, version), made = seen, []
        for row, creative in self.draw.sample(some := self.offered(people), min(slots, len(some))):
            where = np.array([0], np.int32), np.array([row], np.int32), np.array([creative], np.int32)
            levels = tuple(self.caps.keys(*where[1:])[0].tolist())
            (most,) = rooms(self.caps, people, *where)
            made.append(
                Decision(
                    f"d{self.sold}", person, row, self.names(row, creative), levels,
                    frozenset(int(name[0]) for name, _ in most), self.now_s + EXPIRES_S,
                )
            )  # fmt: skip
            self.sold += 1
            if self.reserved(made[-1], tuple(Room(*each) for each in most), version):
                self.check(made[-1])
                self.out.append(made[-1])
            else:
                made.pop()
        return made

    def reserved(self, one: Decision, most: tuple[Room, ...], version: str) -> bool:
        now_ms = self.now_s * 1_000
        self.ledger.lease("w", [Want("all", (UNBOUND,), 1)], now_ms=now_ms, until_ms=now_ms + 1_000)
        wanted = Reservation(
            decision_id=one.id, key="all", windows=(UNBOUND,), micros=0, decision=b"{}", version=version, rooms=most,
            expires_ms=one.until_s * 1_000, kept_ms=now_ms + 30 * DAY * 1_000, person=one.person,
        )  # fmt: skip
        (answer,) = self.ledger.reserve("w", [wanted], now_ms=now_ms)
        return answer.verdict is Verdict.reserved

    def names(self, row: int, creative: int) -> tuple[str, ...]:
        line = self.lines[row]
        assert line is not None
        own = [one for some in self.lines if some for one in some.creatives][creative]
        return own.key, line.key, line.campaign_id, line.advertiser

    def check(self, one: Decision) -> None:
        """By what truly happened: was there room for this one?"""
        life, line = self.lives[one.person], self.lines[one.row]
        assert line is not None
        for cap in line.caps:
            out = sum(
                other.person == one.person
                and other.names[cap.level] == one.names[cap.level]
                and cap.level in other.told
                for other in self.out
            )
            times_s = [time_s for time_s, names in life.saw if names[cap.level] == one.names[cap.level]]
            since_s = self.now_s - cap.window_s if cap.window_s else 0
            if cap.unit is Unit.session:
                since_s = life.last_s + 1 if self.now_s - life.last_s >= SESSION_S else life.session_s
            assert sum(time_s >= since_s for time_s in times_s) + out < cap.count
            if cap.min_gap_s:
                assert not out
                assert all(self.now_s - time_s > cap.min_gap_s for time_s in times_s)

    def happen(self, rows: Sequence[tuple[str, int, Decision | None, int]], times: int = 1, lost: int = 0) -> None:
        """Events arrive: folded and stored after some attempts that were lost, and delivered so many times."""
        log: list[tuple[str, Event]] = []
        for person, action, _, time_s in rows:
            log.append((person, an_event(self.offset, 1, time_s, action)))
            self.offset += 1
        batch = a_batch(log)
        keys = [list(one.levels) if one and action == Action.ad_impression else [0] * 4 for _, action, one, _ in rows]
        shown = [one for _, action, one, _ in rows if one and action == Action.ad_impression]
        for attempt in range(times + lost):
            billables = [Billable(one.id, Source("ads", 0), self.offset + n) for n, one in enumerate(shown)]
            self.ledger.confirm(billables, now_ms=self.now_s * 1_000)
            self.fold(batch, AdSeen(np.array(keys, np.uint32).reshape(-1, 4)), keep=attempt >= lost)
            if attempt >= lost:
                self.ledger.folded([one.id for one in shown])
        for person, action, one, time_s in rows:
            self.lives[person].did(time_s)
            if one and action == Action.ad_impression:
                self.lives[person].saw.append((time_s, one.names))
                self.out.remove(one)

    def fold(self, batch: EventBatch, seen: AdSeen, *, keep: bool) -> None:
        loaded = self.store.load(batch.user_ids, batch.sources)
        codes, floors = loaded.source_code_S, loaded.floor_offset_S
        folded = fold(loaded.states, batch, lateness_s=LATENESS_S, source_code_S=codes, floor_offset_S=floors)
        exposures = fold_exposures(loaded.exposures, loaded.states, batch, folded, seen)
        if not keep:
            return self.store.discard()
        number = self.store.keep(
            batch.user_ids, folded.states, changed_U=folded.changed_U, taste_version=0,
            taste_UD=np.zeros((len(batch.user_ids), 4), np.float32), unanswered=loaded.unanswered, exposures=exposures,
            marks=advance(loaded.marks, batch.sources, batch.source_B, batch.offset_B, folded.fate_B),
        )  # fmt: skip
        return self.store.flush(number)

    def wait(self, seconds: int) -> None:
        """Time goes by; what nobody saw in time is released, and never shown."""
        self.now_s += seconds
        self.ledger.sweep(now_ms=self.now_s * 1_000)
        self.out = [one for one in self.out if one.until_s > self.now_s]

    def step(self) -> None:
        """Whatever happens next."""
        person, what = self.draw.choice(list(self.lives)), self.draw.random()
        if what < 0.45:
            self.sell(person, self.look(person), self.draw.randint(1, 3))
        elif what < 0.55:
            two = self.look(person), self.look(person)
            for seen in two:
                self.sell(person, seen)
        elif what < 0.85:
            self.happen(self.some_events(), self.draw.choice([1, 1, 2]), self.draw.choice([0, 0, 1]))
        else:
            self.wait(self.draw.choice([1, 30, 300, 1_200, 1_900, 7_000, DAY // 2, 3 * DAY]))

    def some_events(self) -> list[tuple[str, int, Decision | None, int]]:
        """Ads that are out are seen, some late, and watched; people do other things."""
        rows: list[tuple[str, int, Decision | None, int]] = []
        for one in self.draw.sample(self.out, self.draw.randint(0, len(self.out))):
            late_s = self.draw.choice([0, 0, 0, 60, 700])
            rows += [(one.person, int(Action.ad_impression), one, self.now_s - late_s)]
            rows += [(one.person, int(of_ad), one, self.now_s) for of_ad in self.draw.sample([*AD_FORMS.values()], 2)
                     if of_ad != Action.ad_impression]  # fmt: skip
        return [*rows, (self.draw.choice(list(self.lives)), int(Action.progress), None, self.now_s)]


def some_caps(draw: random.Random) -> list[Cap]:
    return [
        a_cap(
            draw.choice(list(Unit)), draw.randint(1, 4), draw.choice(list(Level)), draw.choice([0, 0, 0, 60, 3_600]),
            draw.choice([1, 1, 2]),
        )
        for _ in range(draw.randint(0, 3))
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(12))
def test_no_cap_is_exceeded_whatever_happens_in_which_order_also_where_caps_change(seed: int) -> None:
    draw = random.Random(seed)
    world = World(lines_of(*(some_caps(draw) for _ in range(3))), seed)
    for n in range(150):
        world.step()
        if seed % 2 and n % 40 == 39:
            world.edit(lines_of(*(some_caps(draw) for _ in range(3))))
    assert sum(len(life.saw) for life in world.lives.values()) > 5


def saw(world: World, person: str) -> Counter[str]:
    return Counter(names[Level.line_item] for _, names in world.lives[person].saw)


@pytest.mark.parametrize("unit", [Unit.lifetime, Unit.day, Unit.session])
def test_a_cap_of_ten_never_shows_eleven_also_where_two_workers_sell_at_once(unit: Unit) -> None:
    world = World(lines_of([a_cap(unit, 10)]))
    for n in range(40):
        two = world.look("ann"), world.look("ann")
        for seen in two:
            world.sell("ann", seen)
        if n % 3 == 0:
            world.happen([("ann", int(Action.ad_impression), one, world.now_s) for one in list(world.out)], 2, 1)
        world.wait(20)
    assert saw(world, "ann") == {"c0/l0": 10}


def test_ten_for_life_are_ten_when_hundreds_of_other_ads_came_between() -> None:
    world = World(lines_of([a_cap(Unit.lifetime, 10)], []))
    for _ in range(300):
        some = world.sell("ann", world.look("ann"), 2)
        world.happen([("ann", int(Action.ad_impression), one, world.now_s) for one in some])
        world.wait(3_600)
    assert saw(world, "ann")["c0/l0"] == 10
    assert saw(world, "ann")["c1/l1"] > 200


def test_a_changed_cap_reaches_people_who_are_capped_already_and_those_who_are_not() -> None:
    world = World(lines_of([a_cap(count=3)]))

    def sold() -> int:
        return len([world.happen([("ann", int(Action.ad_impression), one, world.now_s)])
                    for _ in range(9) for one in world.sell("ann", world.look("ann"))])  # fmt: skip

    assert [sold(), sold()] == [3, 0]
    world.edit(lines_of([a_cap(count=5)]))
    assert [sold(), sold()] == [2, 0]
    world.edit(lines_of([a_cap(count=4, level=Level.campaign), a_cap(Unit.week, 9)]))
    assert sold() == 0
    world.wait(DAY + 1)
    assert [sold(), sold()] == [4, 0]


def test_a_video_counts_once_however_much_of_it_is_watched() -> None:
    world = World(lines_of([a_cap(count=2)]))
    (one,) = world.sell("ann", world.look("ann"))
    watched = [("ann", int(of_ad), one, world.now_s) for of_ad in AD_FORMS.values() if of_ad != Action.ad_impression]
    world.happen([("ann", int(Action.ad_impression), one, world.now_s), *watched], times=2, lost=1)
    assert world.store.read(["ann"]).exposures.seen_U.tolist() == [1]
    assert len(world.sell("ann", world.look("ann"))) == 1
    assert world.sell("ann", world.look("ann")) == []


def test_who_cannot_be_counted_sees_nothing_that_has_a_cap() -> None:
    world = World(lines_of([a_cap(count=9)], [a_cap(count=9, level=Level.creative)], []))
    unread = world.people(world.store.read(["ann"]), InFlight({}, ""), known=False)
    assert {row for row, _ in world.offered(unread)} == {3}
    assert {row for row, _ in world.offered(world.look("ann")[0])} == {1, 2, 3}
