"""What workers told, read: observations in their order, and what is none."""

from collections.abc import Sequence

from streams.contract import observations
from streams.contract.cloudevents import place_of
from streams.contract.deadletters import Code, DeadLetter
from streams.contract.fields import FIRST_MS, LAST_KEPT_MS
from streams.contract.messages import Part
from streams.contract.observations import LaterObservation, Observation, UnreadableObservation

Told = tuple[Observation, int]
"""What a worker told, and the second it did."""


def read(parts: Sequence[Part], max_bytes: int) -> tuple[list[Told], list[DeadLetter]]:
    """What can be read, in order, and what is no observation; that is put aside once, not when it comes again.

    Raises:
        LaterObservation: of a later release; the learner ends before it loses rows.
    """
    told: list[Told] = []
    dead: list[DeadLetter] = []
    for part in parts:
        for record in part.records:
            try:
                told_ms = record.timestamp if FIRST_MS <= record.timestamp <= LAST_KEPT_MS else LAST_KEPT_MS
                told.append((observations.decode(record.value), told_ms // 1000))
            except LaterObservation as error:
                raise LaterObservation(f"{error} ({place_of(*part.source, record.offset).decode()})") from error
            except UnreadableObservation as error:
                if record.offset >= part.committed:
                    code = _code_of(record.value, max_bytes)
                    dead.append(DeadLetter(part.source, record.offset, record, code, str(error)))
    return told, dead


def _code_of(value: bytes | None, max_bytes: int) -> Code:
    if value is None:
        return Code.null_value
    return Code.too_large if len(value) > max_bytes else Code.malformed
