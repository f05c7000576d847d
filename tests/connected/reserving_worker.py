"""A worker that is killed once: when ads on slates of `kim` are reserved, and nothing of the batch is published."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path

from streams.commands.cli import main
from streams.contract.deadletters import DeadLetter
from streams.contract.messages import Outgoing, Part
from streams.serving.pipeline import Answer
from streams.worker.events_lane import EventsLane

TOLD = "MARQUEE_CACHE"
"""The folder in which it leaves the decisions that it was killed with."""
FILE = "reserved"
_outgoing = EventsLane._outgoing


def killed(self: EventsLane, answer: Answer, parts: Sequence[Part]) -> tuple[list[Outgoing], list[DeadLetter]]:
    ads = [d.value for s in answer.slates if s.trigger.user_id == "kim" for d in s.ads if d.record.filled]
    if ads:
        Path(os.environ[TOLD], FILE).write_bytes(b"\n".join(ads))
        os.kill(os.getpid(), signal.SIGKILL)
    return _outgoing(self, answer, parts)


if __name__ == "__main__":
    EventsLane._outgoing = killed  # type: ignore[method-assign]
    main()
