from hypothesis import given, settings
from hypothesis import strategies as st

from embeddings.events import Source
from streams.transport.ahead import Ahead

SOURCES = [Source("events", partition) for partition in range(4)]

steps = st.lists(
    st.one_of(
        st.tuples(st.just("fetch"), st.integers(0, 3), st.integers(1, 30)),
        st.tuples(st.just("take"), st.integers(1, 15), st.integers(1, 40)),
    ),
    max_size=60,
)


@settings(deadline=None)
@given(steps)
def test_what_is_fetched_is_taken_once_in_order_and_never_too_much(steps: list[tuple[str, int, int]]) -> None:
    ahead, fetched, taken = Ahead(), dict.fromkeys(SOURCES, 0), {source: [] for source in SOURCES}
    for step, which, n in steps:
        if step == "fetch":
            source, first = SOURCES[which], fetched[SOURCES[which]]
            ahead.add({source: list(range(first, first + n))})
            fetched[source] += n
        else:
            asked = {source for source in SOURCES if which >> source.partition & 1}
            waiting = sum(ahead.counts().get(source, 0) for source in asked)
            parts = ahead.take(asked, n)
            assert set(parts) <= asked
            assert sum(map(len, parts.values())) == min(n, waiting)
            for source, records in parts.items():
                taken[source] += records
    for source in SOURCES:
        assert taken[source] == list(range(len(taken[source])))
        assert ahead.counts().get(source, 0) == fetched[source] - len(taken[source])


def test_a_busy_partition_lets_the_others_go_first() -> None:
    ahead = Ahead()
    ahead.add({SOURCES[0]: list(range(100)), SOURCES[1]: [0]})
    assert list(ahead.take(SOURCES, 10)) == [SOURCES[0]]
    assert {source: len(records) for source, records in ahead.take(SOURCES, 10).items()} == {
        SOURCES[1]: 1,
        SOURCES[0]: 9,
    }


def test_what_is_dropped_is_not_taken() -> None:
    ahead = Ahead()
    ahead.add({source: [1, 2] for source in SOURCES})
    ahead.drop({SOURCES[1]})
    assert SOURCES[1] not in ahead
    assert set(ahead.take(SOURCES, 100)) == set(SOURCES) - {SOURCES[1]}
    ahead.add({SOURCES[0]: [3]})
    ahead.drop()
    assert ahead.counts() == {}
