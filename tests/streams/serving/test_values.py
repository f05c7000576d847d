import numpy as np

from ranking.features import COLUMNS
from streams.serving.values import Examples, joined


def some(*positions: int) -> Examples:
    at = np.array(positions)
    return Examples(
        position_E=at,
        item_ES=at[:, None].astype(np.uint64),
        x_ESF=np.zeros((len(at), 1, COLUMNS), np.float16),
        log_q_ES=np.zeros((len(at), 1), np.float16),
    )


def test_parts_are_joined_in_the_order_of_positions() -> None:
    whole = joined([some(5, 2), some(9), some(0, 7)])
    assert whole.position_E.tolist() == whole.item_ES[:, 0].tolist() == [0, 2, 5, 7, 9]


def test_one_part_in_order_is_taken_as_it_is() -> None:
    part = some(1, 4)
    assert joined([part]) is part
    assert joined([some(4, 1)]).position_E.tolist() == [1, 4]
