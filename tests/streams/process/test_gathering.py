import asyncio
from collections.abc import Sequence

import pytest

from streams.process.gathering import Crowded, Together


class Away(Exception):
    """Nobody's fault."""


class Oracle:
    """Doubles numbers when it may; 13 spoils whatever it is part of, 99 says that all is away."""

    def __init__(self) -> None:
        self.may, self.batches = asyncio.Event(), list[list[int]]()

    async def double(self, numbers: Sequence[int]) -> list[int]:
        self.batches.append(list(numbers))
        await self.may.wait()
        if 99 in numbers:
            raise Away
        if 13 in numbers:
            raise ZeroDivisionError
        return [2 * number for number in numbers]


@pytest.fixture
async def oracle() -> Oracle:
    return Oracle()


@pytest.fixture
async def together(oracle: Oracle) -> Together[int, int]:
    return Together(answer=oracle.double, most=4, waiting=6, passes=(Away,))


async def ask(together: Together[int, int], *numbers: int) -> list["asyncio.Task[int]"]:
    asking = [asyncio.create_task(together.ask(number)) for number in numbers]
    for _ in range(4):
        await asyncio.sleep(0)
    return asking


async def test_what_waits_while_one_is_answered_is_answered_in_one_go(
    oracle: Oracle, together: Together[int, int]
) -> None:
    asking = await ask(together, 1)
    asking += await ask(together, 2, 3, 4, 5, 6)
    oracle.may.set()
    assert await asyncio.gather(*asking) == [2, 4, 6, 8, 10, 12]
    assert oracle.batches == [[1], [2, 3, 4, 5], [6]]
    assert await together.ask(7) == 14, "and it goes on"


async def test_one_that_spoils_a_batch_fails_alone(oracle: Oracle, together: Together[int, int]) -> None:
    oracle.may.set()
    first, bad, last = await asyncio.gather(*(together.ask(n) for n in (1, 13, 2)), return_exceptions=True)
    assert (first, last) == (2, 4)
    assert isinstance(bad, ZeroDivisionError)


async def test_what_is_nobodys_fault_is_not_tried_one_by_one(oracle: Oracle, together: Together[int, int]) -> None:
    oracle.may.set()
    told = await asyncio.gather(*(together.ask(n) for n in (1, 99, 2)), return_exceptions=True)
    assert [type(error) for error in told] == [Away, Away, Away]
    assert len(oracle.batches) == 1


async def test_only_so_many_wait_and_who_left_is_not_answered(oracle: Oracle, together: Together[int, int]) -> None:
    asking = await ask(together, 1)
    asking += await ask(together, *range(2, 8))
    with pytest.raises(Crowded):
        await together.ask(8)
    asking[1].cancel()
    oracle.may.set()
    assert await asyncio.gather(*asking[2:]) == [6, 8, 10, 12, 14]
    assert oracle.batches[1] == [3, 4, 5]
