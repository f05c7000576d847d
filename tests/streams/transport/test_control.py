from types import SimpleNamespace

from aiokafka import TopicPartition

from streams.transport.control import ControlReader, _Reading

CATALOG, MODELS = TopicPartition("catalog", 0), TopicPartition("models", 0)


def a_state(position: int, end: int | None = None, *, answered_ms: int | None = None) -> SimpleNamespace:
    """What aiokafka knows of a partition."""
    return SimpleNamespace(position=position, highwater=end, lso=end, timestamp=answered_ms)


def test_a_partition_whose_leader_does_not_answer_is_not_read() -> None:
    """Polls bring nothing then, as they do at the end."""
    reading = _Reading()
    for _ in range(9):
        reading.follow(a_state(0), quiet=True)
    assert not reading.read


def test_a_partition_is_read_where_it_ended_at_first() -> None:
    reading = _Reading()
    reading.follow(a_state(0, 10, answered_ms=1), quiet=False)
    assert (reading.read, reading.end) == (False, 10)
    reading.follow(a_state(10, 30, answered_ms=2), quiet=False)
    assert (reading.read, reading.end) == (True, 10)


def test_an_end_that_cannot_be_reached_is_given_up_when_nothing_comes_from_anywhere() -> None:
    """An empty answer alone says little: another partition may have filled it."""
    reading = _Reading()
    for n in range(9):
        reading.follow(a_state(5, 10, answered_ms=n), quiet=n % 2 == 0)
    assert not reading.read
    for _ in range(9):
        reading.follow(a_state(5, 10, answered_ms=9), quiet=True)
    assert not reading.read, "it was the same answer"
    for n in range(10, 14):
        reading.follow(a_state(5, 10, answered_ms=n), quiet=True)
    assert reading.read


def test_what_is_not_read_is_named() -> None:
    reader = ControlReader(options={}, handlers={"catalog": _never, "models": _never})
    assert reader.unread() == "catalog is not read yet: the brokers have not named its partitions"
    reader._readings = {CATALOG: _Reading(), MODELS: _Reading()}
    assert reader.unread() == "catalog/0 is not read yet: its leader has not answered"
    reader._readings[CATALOG].follow(a_state(3, 9, answered_ms=1), quiet=False)
    assert reader.unread() == "catalog/0 is still being read: 3 of 9"
    reader._readings[CATALOG].follow(a_state(9, 9, answered_ms=2), quiet=False)
    assert str(reader.unread()).startswith("catalog/0 is not read any more: its leader has not answered for ")


async def _never(_records: object) -> None:
    raise AssertionError
