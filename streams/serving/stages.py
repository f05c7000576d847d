"""The stages that a batch passes: how they are timed, and when each was passed."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

StageTimer = Callable[[Any], AbstractContextManager[object]]


def untimed(name: object) -> AbstractContextManager[object]:
    """A stage timer that times nothing."""
    return nullcontext()


def epoch_ms() -> int:
    """The wall clock in epoch milliseconds."""
    return time.time_ns() // 1_000_000


@dataclass(slots=True)
class Stamps:
    """When a batch passed each stage, epoch milliseconds."""

    received_ms: int = 0
    decoded_ms: int = 0
    folded_ms: int = 0
    retrieved_ms: int = 0
    ranked_ms: int = 0
