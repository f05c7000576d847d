"""Questions that wait are answered together: while one batch is answered, the next one gathers.

One question that waits alone is answered at once, and a thousand share a round trip; nobody waits for company.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")


class Crowded(Exception):
    """So many questions wait already that this one is not taken. It may be asked again soon."""


@dataclass(slots=True, kw_only=True)
class Together(Generic[Q, A]):
    """Answers in batches; of one event loop.

    Attributes:
        answer: the answers to some questions, in their order.
        most: questions in a batch.
        waiting: questions that may wait.
        passes: errors of `answer` that are nobody's fault. After any other each question of the batch is asked alone,
            so that one cannot spoil what others get.
    """

    answer: Callable[[Sequence[Q]], Awaitable[Sequence[A]]]
    most: int
    waiting: int = 1_024
    passes: tuple[type[Exception], ...] = ()
    _questions: deque[tuple[Q, "asyncio.Future[A]"]] = field(init=False, default_factory=deque)
    _work: "asyncio.Task[None] | None" = field(init=False, default=None)

    async def ask(self, question: Q) -> A:
        """The answer to a question.

        Raises:
            Crowded: see there.
            Exception: what `answer` raised of it.
        """
        if len(self._questions) >= self.waiting:
            raise Crowded
        future: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._questions.append((question, future))
        if self._work is None:
            self._work = asyncio.create_task(self._go_on())
        return await future

    async def _go_on(self) -> None:
        try:
            while self._questions:
                some = [self._questions.popleft() for _ in range(min(self.most, len(self._questions)))]
                await self._settle([one for one in some if not one[1].done()])
        finally:
            self._work = None

    async def _settle(self, some: Sequence[tuple[Q, "asyncio.Future[A]"]]) -> None:
        try:
            answers = await self.answer([question for question, _ in some])
        except Exception as error:
            if len(some) > 1 and not isinstance(error, self.passes):
                for one in some:
                    await self._settle([one])
                return
            for _, future in some:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), answer in zip(some, answers, strict=True):
            if not future.done():
                future.set_result(answer)
