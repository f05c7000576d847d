"""A thread that ends the process, with the stacks of all threads on standard error, when nothing moves any more.

It is a thread, not a task: it works while the event loop is blocked. A supervisor (systemd, Kubernetes) starts the
process again, and what was not committed is delivered again.

Exit codes of a worker: 0 it was asked to stop · 1 it crashed, the traceback is in the log · 75 a batch or the event
loop was stuck · 76 records were waiting and none was delivered · 77 it did not stop in time.
"""

import faulthandler
import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic

from streams.transport.gates import Gate

EXIT_STUCK, EXIT_STALLED, EXIT_UNSTOPPABLE = 75, 76, 77

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why the process must end, and with which exit code."""

    reason: str
    exit_code: int


class Watchdog(threading.Thread):
    """Asks `judge(monotonic seconds)` every `every_s` and ends the process when it gets a verdict."""

    def __init__(self, judge: Callable[[float], Verdict | None], *, every_s: float = 1.0) -> None:
        super().__init__(name="watchdog", daemon=True)
        self._judge, self._every_s = judge, every_s
        self._over = threading.Event()

    def run(self) -> None:
        """Judge until `stop`; not just after the whole process was suspended, when everything looks late."""
        looked_s = monotonic()
        while not self._over.wait(self._every_s):
            looked_s, before_s = monotonic(), looked_s
            verdict = self._judge(looked_s) if looked_s - before_s < self._every_s + 5.0 else None
            if verdict is not None and not self._over.is_set():
                end_process(verdict)

    def stop(self) -> None:
        """End no process any more."""
        self._over.set()


class LaneJudge:
    """Judges whether a lane, the event loop or the delivery stopped moving."""

    def __init__(self, gates: Mapping[str, Gate], *, stalled_after_s: float, waits: Callable[[str], bool]) -> None:
        """`waits` tells whether records of a topic are there and may be delivered."""
        self._gates, self._stalled_after_s, self._waits = gates, stalled_after_s, waits
        self._waiting_since_s: dict[str, float] = {}
        self._beat_s = monotonic()

    def beat(self) -> None:
        """Called in the event loop, as long as it turns."""
        self._beat_s = monotonic()

    def __call__(self, now_s: float) -> Verdict | None:
        """Why the process must end, if it must; from the watchdog's thread."""
        for topic, gate in self._gates.items():
            if gate.stuck_s(now_s) > gate.lane.stuck_after_s:
                sizes = sorted(len(unit) for unit in list(gate.out))
                return Verdict(f"{topic}: un-acknowledged for {gate.stuck_s(now_s):.0f} s, units {sizes}", EXIT_STUCK)
            if (waiting_s := self._waiting_s(topic, gate, now_s)) > self._stalled_after_s:
                return Verdict(f"{topic}: records wait, none delivered for {waiting_s:.0f} s", EXIT_STALLED)
        blocked_s = now_s - self._beat_s
        limit_s = min((gate.lane.stuck_after_s for gate in self._gates.values()), default=float("inf"))
        return Verdict(f"the event loop was blocked for {blocked_s:.0f} s", EXIT_STUCK) if blocked_s > limit_s else None

    def _waiting_s(self, topic: str, gate: Gate, now_s: float) -> float:
        """How long records of an open lane have been there at every look without one being delivered."""
        if gate.out or not self._waits(topic):
            self._waiting_since_s.pop(topic, None)
            return 0.0
        return now_s - max(gate.moved_s, self._waiting_since_s.setdefault(topic, now_s))


def end_process(verdict: Verdict) -> None:
    """Write reason and stacks, and exit at once: nothing is committed, closed or flushed on the way."""
    log.critical("ending the process with code %d: %s; stacks follow", verdict.exit_code, verdict.reason)
    faulthandler.dump_traceback(file=sys.__stderr__ or 2, all_threads=True)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(verdict.exit_code)


def deadline(after_s: float, reason: str) -> threading.Timer:
    """Start a countdown that ends the process; cancel it when what it waits for has happened."""
    timer = threading.Timer(after_s, end_process, [Verdict(reason, EXIT_UNSTOPPABLE)])
    timer.daemon = True
    timer.start()
    return timer
