from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from embeddings.events import Source
from streams.contract.messages import Part
from streams.transport.ledger import Ledger, Unit
from tests.fuzzing import thorough

HERE, THERE = Source("events", 0), Source("events", 1)


@dataclass(frozen=True)
class ARecord:
    offset: int


def records(*offsets: int) -> list[ARecord]:
    return [ARecord(o) for o in offsets]


def delivered(ledger: Ledger, *parts: tuple[Source, list[ARecord]], generation: int = 1) -> Unit:
    unit = ledger.unit(Part(source, some, some[-1].offset, -1) for source, some in parts)
    ledger.deliver(unit, generation=generation)
    return unit


def test_only_an_acknowledged_prefix_is_committed() -> None:
    ledger = Ledger()
    units = [delivered(ledger, (HERE, records(n * 10, n * 10 + 9))) for n in range(3)]
    ledger.ack(units[1])
    assert list(ledger.committable()) == []
    assert ledger.take(HERE, generation=1) is None
    ledger.ack(units[0])
    assert list(ledger.committable()) == [HERE]
    assert ledger.take(HERE, generation=1) == 20
    assert ledger.take(HERE, generation=1) is None


def test_a_unit_over_two_partitions_moves_both() -> None:
    ledger = Ledger()
    unit = delivered(ledger, (HERE, records(5)), (THERE, records(70, 81)))
    ledger.ack(unit)
    assert {source: ledger.take(source, generation=1) for source in ledger.committable()} == {HERE: 6, THERE: 82}


def test_what_an_earlier_generation_processed_is_not_committed() -> None:
    ledger = Ledger()
    old, new = delivered(ledger, (HERE, records(5))), delivered(ledger, (HERE, records(6)), generation=2)
    ledger.ack(old)
    assert ledger.take(HERE, generation=2) is None
    ledger.ack(new)
    assert ledger.take(HERE, generation=2) == 7


def test_a_partition_that_was_sent_back_forgets_what_was_delivered() -> None:
    ledger = Ledger()
    before = delivered(ledger, (HERE, records(5)), (THERE, records(5)))
    ledger.forget(HERE)
    again = delivered(ledger, (HERE, records(1, 2)))
    ledger.ack(before)
    assert ledger.take(HERE, generation=1) is None
    assert ledger.take(THERE, generation=1) == 6
    ledger.ack(again)
    assert ledger.take(HERE, generation=1) == 3


def test_what_was_fetched_before_a_partition_was_sent_back_is_not_delivered() -> None:
    ledger = Ledger()
    unit = ledger.unit([Part(HERE, records(8), 8, -1), Part(THERE, records(3), 3, -1)])
    ledger.forget(HERE)
    assert ledger.deliver(unit, generation=1)
    assert ([p.source for p in unit.parts], len(unit)) == ([THERE], 1)
    ledger.forget(THERE)
    assert not ledger.deliver(unit, generation=1)


def test_a_unit_that_was_topped_up_moves_all_it_holds() -> None:
    ledger = Ledger()
    first, unit = delivered(ledger, (HERE, records(1, 2))), delivered(ledger, (HERE, records(3)))
    epochs = ledger.epochs([HERE, THERE])
    more = [Part(s, records(7, 8), 8, -1, epochs[s]) for s in (HERE, THERE)]
    ledger.extend(unit, more)
    assert [[record.offset for record in part.records] for part in unit.parts] == [[3, 7, 8], [7, 8]]
    assert len(unit) == 5
    ledger.ack(unit)
    assert (ledger.take(HERE, generation=1), ledger.take(THERE, generation=1)) == (None, 9)
    ledger.ack(first)
    assert ledger.take(HERE, generation=1) == 9


def test_what_was_sent_back_while_it_was_taken_is_not_added() -> None:
    ledger = Ledger()
    unit = delivered(ledger, (HERE, records(3)))
    epochs = ledger.epochs([HERE, THERE])
    ledger.forget(HERE)
    ledger.extend(unit, [Part(s, records(7), 7, -1, epochs[s]) for s in (HERE, THERE)])
    assert [part.source for part in unit.parts] == [THERE]
    assert len(unit) == 1


def test_acknowledging_twice_counts_once() -> None:
    ledger = Ledger()
    unit = delivered(ledger, (HERE, records(1)))
    assert [ledger.ack(unit), ledger.ack(unit)] == [True, False]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("fetch"), st.integers(0, 1), st.integers(1, 30)),
        st.tuples(st.just("deliver"), st.integers(0, 5), st.just(0)),
        st.tuples(st.sampled_from(["top up", "top up too late"]), st.integers(0, 1), st.integers(1, 30)),
        st.tuples(st.just("ack"), st.integers(0, 20), st.just(0)),
        st.tuples(st.just("commit"), st.integers(0, 1), st.just(0)),
        st.tuples(st.just("rebalance"), st.just(0), st.just(0)),
        st.tuples(st.just("send back"), st.integers(0, 1), st.integers(1, 60)),
    ),
    min_size=30,
    max_size=120,
)


@thorough(300)
@given(steps)
def test_nothing_unprocessed_is_ever_committed_over(steps: list[tuple[str, int, int]]) -> None:
    """A model of a log with holes, a reader that is sent about, and agents that acknowledge in any order."""
    ledger, generation = Ledger(), 1
    position, committed = {HERE: 0, THERE: 0}, {HERE: 0, THERE: 0}
    processed: dict[Source, set[int]] = {HERE: set(), THERE: set()}
    fetched: list[Unit] = []
    out: list[Unit] = []
    last = Unit([], 0)

    def read(source: Source, n: int) -> list[int]:
        position[source] += n
        return [o for o in range(position[source] - n, position[source]) if o % 7 != 3]

    def fetch(source: Source, n: int) -> None:
        offsets = read(source, n)
        cuts = [records(*offsets[at : at + 10]) for at in range(0, len(offsets), 10)]
        fetched.extend(ledger.unit([Part(source, cut, cut[-1].offset, committed[source])]) for cut in cuts)

    def commit(source: Source) -> None:
        offset = ledger.take(source, generation=generation)
        if offset is not None and offset > committed[source]:
            committed[source] = offset

    for step, which, n in steps:
        source = (HERE, THERE)[min(which, 1)]
        if step == "fetch":
            fetch(source, n)
        elif step == "deliver" and fetched:
            last = unit = fetched.pop(0)
            ledger.deliver(unit, generation=generation)
            out.append(unit)
        elif step in ("top up", "top up too late") and last in out and not fetched:
            epoch = ledger.epochs([source])[source]
            more = [Part(source, records(*some), some[-1], -1, epoch) for some in [read(source, n)] if some]
            if step == "top up too late":
                position[source] = max(committed[source] - n, 0)
                ledger.forget(source)
            ledger.extend(last, more)
        elif step == "ack" and out:
            unit = out.pop(which % len(out))
            ledger.ack(unit)
            for part in unit.parts:
                processed[part.source].update(r.offset for r in part.records)
        elif step == "commit":
            commit(source)
        elif step in ("rebalance", "send back"):
            sources = [HERE, THERE] if step == "rebalance" else [source]
            generation += step == "rebalance"
            for moved in sources:
                position[moved] = max(committed[moved] - n, 0)
                ledger.forget(moved)
        for s in (HERE, THERE):
            assert {o for o in range(committed[s]) if o % 7 != 3} <= processed[s]
