from streams.transport.fetching import Batching
from streams.transport.gates import Lane


def test_a_lane_fetches_ahead_what_a_unit_holds_and_a_topic_without_one_little() -> None:
    batching = Batching(client_options={}, lanes={"events": Lane(max_batch=7)})
    assert (batching.room("events"), batching.room("plain")) == (7, 1)
