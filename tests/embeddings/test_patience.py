import pytest

from embeddings.errors import StoreUnavailable
from embeddings.patience import Patience


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_silent_server_is_let_alone_for_four_times_as_long_as_it_kept_somebody_waiting() -> None:
    clock = Clock()
    patience = Patience(2.0, now_s=clock)
    assert patience.begin() == 2.0
    patience.waited_in_vain(0.5)
    for clock.now_s in (100.0, 101.9):
        with pytest.raises(StoreUnavailable):
            patience.begin()
    clock.now_s = 102.0
    assert patience.begin() == 2.0


def test_who_cannot_answer_without_it_waits_each_time() -> None:
    patience = Patience(2.0, lets_alone=False)
    patience.waited_in_vain(2.0)
    assert patience.begin() == 2.0


@pytest.mark.parametrize(("may_s", "waits_s"), [(0.5, 0.5), (9.0, 2.0), (0.0, 0.1)])
def test_nobody_waits_for_longer_than_at_most_or_for_less_than_a_healthy_server_takes(
    may_s: float, waits_s: float
) -> None:
    patience = Patience(2.0)
    patience.within(may_s)
    assert patience.begin() == waits_s
