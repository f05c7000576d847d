import logging

from streams.process.logs import Repeats


def test_what_a_library_says_all_the_time_is_said_sometimes_with_how_often() -> None:
    now_s = 0.0
    repeats = Repeats(every_s=10, clock=lambda: now_s)
    written: list[str] = []
    for step in range(250):
        now_s = step / 10
        for name, message in (("aiokafka.cluster", "Topic %s not found"), ("streams.worker", "100 %s")):
            record = logging.LogRecord(name, logging.ERROR, "", 0, message, ("50 %",), None)
            if repeats.filter(record) and name != "streams.worker":
                written.append(record.getMessage())
    said = "Topic 50 % not found"
    assert written == [said, f"{said} (said 99 times more meanwhile)", f"{said} (said 99 times more meanwhile)"]


def test_our_own_lines_and_other_lines_are_all_written() -> None:
    repeats = Repeats(clock=lambda: 0.0)
    ours = [logging.LogRecord("streams.worker", logging.WARNING, "", 0, "again", (), None) for _ in range(3)]
    others = [logging.LogRecord("aiokafka", logging.ERROR, "", 0, "node %d", (node,), None) for node in range(3_000)]
    assert all(map(repeats.filter, ours + others))
