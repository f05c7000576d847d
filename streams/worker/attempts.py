"""A batch is answered whole; one that keeps failing, record by record, and what fails alone is put aside."""

import logging
from collections.abc import Awaitable, Callable, Container, Sequence
from typing import TypeGuard, TypeVar

from embeddings.events import Source
from streams.contract.deadletters import Code, DeadLetter
from streams.contract.messages import Part, RawRecord
from streams.process.member import Rewind
from streams.transport.failures import Failed, Guard, Succeeded, Verdict

T = TypeVar("T")
log = logging.getLogger(__name__)

Attempt = Callable[[Sequence[Part], Sequence[DeadLetter]], Awaitable[T]]
"""Answers the records of some partitions, and puts others of them aside as dead letters."""


async def whole_or_apart(
    guard: Guard, parts: Sequence[Part], attempt: Attempt[T], *, paused: Container[Source] = ()
) -> list[T]:
    """The results of one attempt, or of one for each record; records of paused partitions are left alone.

    Raises:
        Rewind: the guard says that the batch is to be dropped and fetched again.
        Exception: what the guard says ends the process.
    """
    parts = [part for part in parts if part.source not in paused]
    if not parts:
        return []
    done = await guard.run(lambda: attempt(parts, ()))
    if not _puzzles(done):
        return [settled(done)]
    log.error("a batch of %d is taken apart, record by record", sum(len(part.records) for part in parts))
    return [
        await _alone(guard, part, record, attempt)
        for part in parts
        for record in part.records
        if part.source not in paused  # an attempt may pause one
    ]


async def _alone(guard: Guard, part: Part, record: RawRecord, attempt: Attempt[T]) -> T:
    one = Part(part.source, [record], record.offset, part.committed)
    done = await guard.run(lambda: attempt([one], ()))
    if not _puzzles(done):
        return settled(done)
    nothing = Part(part.source, [], record.offset, part.committed)
    letter = DeadLetter(part.source, record.offset, record, Code.handler_error, type(done.error).__name__)
    return settled(await guard.run(lambda: attempt([nothing], [letter])))


def _puzzles(done: Succeeded[T] | Failed) -> TypeGuard[Failed]:
    """Did it fail, and nobody knows why?"""
    return isinstance(done, Failed) and done.verdict is Verdict.dead_letter


def settled(done: Succeeded[T] | Failed) -> T:
    """The result, or what the agent ends its unit with."""
    if isinstance(done, Succeeded):
        return done.result
    raise Rewind(str(done.error)) if done.verdict is Verdict.skip else done.error
