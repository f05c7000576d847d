"""A topic that grows while it is read, while it is not, and with a store that forgets: every record counts once.

Partitions are simulated: who reads with a count judges, folds what is right, and sends the rest home.
"""

from dataclasses import dataclass, field

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from embeddings.events import Source
from streams.contract.homes import Homes
from tests.fuzzing import thorough


@dataclass
class Log:
    """Partitions of hashes with identities; the state of the store and of the group."""

    partitions: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    marks: dict[int, int] = field(default_factory=dict)
    committed: dict[int, int] = field(default_factory=dict)
    notes: dict[int, str] = field(default_factory=dict)
    folded: list[int] = field(default_factory=list)
    written: int = 0

    def write(self, hashed: int, partition: int) -> None:
        self.written += 1
        self.partitions.setdefault(partition, []).append((hashed, self.written))

    def read(self, count: int, topic: int) -> None:
        """Read all partitions to their ends, by a setting of `count`, of a topic that has `topic` of them."""
        homes = Homes()
        for p in range(topic):
            after, committed = self.marks.get(p, 0), self.committed.get(p, -1)
            homes.take(Source("events", p), note=self.notes.get(p, ""), count=count, after=after, committed=committed)
        moved = True
        while moved:
            moved = sum(self._read_one(homes, p, count) for p in range(topic)) > 0

    def _read_one(self, homes: Homes, p: int, count: int) -> bool:
        source, records, start = Source("events", p), self.partitions.get(p, []), self.marks.get(p, 0)
        for offset in range(start, len(records)):
            hashed, name = records[offset]
            left = bool(homes.left(source, np.array([offset]), np.array([hashed]))[0])
            first = offset >= self.committed.get(p, -1)
            if hashed % count == p and not left:
                self.folded.append(name)
            elif first or not left:
                self.partitions.setdefault(hashed % count, []).append((hashed, name))
        self.marks[p] = len(records)
        homes.stored(source, len(records) - 1)
        self.committed[p] = max(self.committed.get(p, -1), len(records))
        self.notes[p] = homes.note(source)
        return len(records) > start

    def lose(self) -> None:
        self.marks.clear()
        self.folded.clear()


WHAT = ["grow the topic", "grow the setting", "lose", "read", "write by the topic", "write by the setting", "write"]
STEPS = st.lists(st.tuples(st.sampled_from(WHAT), st.integers(0, 1000), st.booleans()), max_size=16)


@thorough(500)
@given(STEPS)
def test_whatever_grows_and_is_lost_every_record_is_folded_once(steps: list[tuple[str, int, bool]]) -> None:
    log, topic, setting = Log(), 2, 2
    for what, seed, then_read in [*steps, ("read", 0, True)]:
        if what == "grow the topic":
            topic = min(topic * 2, 16)
        elif what == "grow the setting":
            setting = topic
        elif what == "lose":
            log.lose()
        for number in range(seed, seed + 8):
            if what == "write by the topic":
                log.write(number, number % topic)
            elif what == "write by the setting":
                log.write(number, number % setting)
            elif what == "write":
                log.write(number, number // 7 % topic)
        if then_read:
            log.read(setting, topic)
    assert sorted(log.folded) == list(range(1, log.written + 1))


def test_a_note_that_something_else_wrote_is_none() -> None:
    homes, here = Homes(), Source("events", 1)
    for note in ("", "faust", "8@", "8@x", "+@1"):
        homes.take(here, note=note, count=8, after=5, committed=7)
        assert homes.note(here) == "8@7"


def test_before_anything_was_noted_a_record_that_was_right_once_never_left() -> None:
    homes, here = Homes(), Source("events", 1)
    homes.take(here, note="", count=16, after=0, committed=10)
    offset, hashed = np.array([9, 9, 9, 10]), np.array([9, 17, 6, 9])
    assert homes.left(here, offset, hashed).tolist() == [False, False, True, True]


def test_a_store_that_loses_its_tail_again_and_again_makes_no_note_longer() -> None:
    homes, here, note = Homes(), Source("events", 1), "8@0 16@700"
    for committed in range(1_000, 100_000, 100):
        homes.take(here, note=note, count=16, after=committed - 10, committed=committed)
        homes.stored(here, committed)
        note = homes.note(here)
    assert note == "8@0 16@700"
