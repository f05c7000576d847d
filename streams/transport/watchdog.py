"""A thread that ends the process, with the stacks of all threads on standard error, when nothing moves any more.

It is a thread, not a task: it works while the event loop is blocked. A supervisor (systemd, Kubernetes) starts the
process again, and what was not committed is delivered again.

Exit codes of a worker: 0 it was asked to stop · 1 it crashed, the log ends with the reason · 75 a batch or the event
loop was stuck · 76 records or positions were waiting and none was delivered · 77 it did not stop in time · 78
another process has its place in the group.
"""

import faulthandler
import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic

from streams.transport.gates import Gate

EXIT_STUCK, EXIT_STALLED, EXIT_UNSTOPPABLE, EXIT_DISPLACED = 75, 76, 77, 78
SLOW_S = 15.0
"""A unit takes milliseconds: one that is out for this long says that the process cannot do its work."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ending:
    """Why the process must end, and with which exit code."""

    reason: str
    exit_code: int


class Watchdog(threading.Thread):
    """Asks `judge(monotonic seconds)` every `every_s` and ends the process when it gets one."""

    def __init__(self, judge: Callable[[float], Ending | None], *, every_s: float = 1.0) -> None:
        super().__init__(name="watchdog", daemon=True)
        self._judge, self._every_s = judge, every_s
        self._over = threading.Event()

    def run(self) -> None:
        """Judge until `stop`; not just after the whole process was suspended, when everything looks late."""
        looked_s = monotonic()
        while not self._over.wait(self._every_s):
            looked_s, before_s = monotonic(), looked_s
            ending = self._judge(looked_s) if looked_s - before_s < self._every_s + 5.0 else None
            if ending is not None and not self._over.is_set():
                end_process(ending)

    def stop(self) -> None:
        """End no process any more."""
        self._over.set()


@dataclass(kw_only=True)
class LaneJudge:
    """Judges by what is delivered whether a lane, the event loop or the delivery stopped moving.

    `waits` tells whether records of a topic are there and may be delivered; `stands` why nothing can be delivered of
    what is assigned, which is so for moments after every assignment, and as long as positions cannot be had.
    `unheard_s` is how long no broker answered; `displaced` says that another process is this member of the group now.
    """

    gates: Mapping[str, Gate]
    stalled_after_s: float
    waits: Callable[[str], bool]
    stands: Callable[[], str | None] = lambda: None
    unheard_s: Callable[[float], float] = lambda now_s: 0.0
    displaced: Callable[[], bool] = lambda: False
    give_up_after_s: float = float("inf")
    _waiting_since_s: dict[str, float] = field(default_factory=dict)
    _standing_since_s: float | None = None
    _declared_s: float = 0.0
    _beat_s: float = field(default_factory=monotonic)

    def declare(self, _reason: str, *, now_s: float | None = None) -> None:
        """Positions cannot be had because something was seen to be away just now."""
        self._declared_s = monotonic() if now_s is None else now_s

    def beat(self) -> None:
        """Called in the event loop, as long as it turns."""
        self._beat_s = monotonic()

    def __call__(self, now_s: float) -> Ending | None:
        """Why the process must end, if it must; from the watchdog's thread."""
        for topic, gate in self.gates.items():
            if (ending := _stuck(topic, gate, now_s)) is not None:
                return ending
            if (waiting_s := self._waiting_s(topic, gate, now_s)) > self.stalled_after_s:
                return Ending(f"{topic}: records wait, none delivered for {waiting_s:.0f} s", EXIT_STALLED)
        if self.displaced():
            return Ending("another process of this instance_id took its place in the group", EXIT_DISPLACED)
        if (unheard_s := self.unheard_s(now_s)) > self.give_up_after_s:
            return Ending(f"no broker was heard for {unheard_s:.0f} s", EXIT_STALLED)
        why, standing_s = self._standing(now_s)
        if standing_s > self.give_up_after_s or min(standing_s, now_s - self._declared_s) > self.stalled_after_s:
            return Ending(f"{why}, for {standing_s:.0f} s", EXIT_STALLED)
        blocked_s = now_s - self._beat_s
        limit_s = min((gate.lane.stuck_after_s for gate in self.gates.values()), default=float("inf"))
        return Ending(f"the event loop was blocked for {blocked_s:.0f} s", EXIT_STUCK) if blocked_s > limit_s else None

    def holdup(self, now_s: float) -> str | None:
        """Why units do not move now: one is out for longer than `SLOW_S`, or none can be delivered."""
        for topic, gate in self.gates.items():
            if (oldest_s := gate.oldest_s(now_s)) > SLOW_S:
                return f"{topic}: a unit is un-acknowledged for {oldest_s:.0f} s"
            if topic in self._waiting_since_s and (waiting_s := self._waiting_s(topic, gate, now_s)) > SLOW_S:
                return f"{topic}: records wait, none delivered for {waiting_s:.0f} s"
        since_s = self._standing_since_s
        return self.stands() if since_s is not None and now_s - since_s > SLOW_S else None

    def _standing(self, now_s: float) -> tuple[str | None, float]:
        """Why nothing can be delivered, and for how long that was so at every look."""
        why = self.stands()
        if why is None:
            self._standing_since_s = None
            return None, 0.0
        if self._standing_since_s is None:
            self._standing_since_s = now_s
        return why, now_s - self._standing_since_s

    def _waiting_s(self, topic: str, gate: Gate, now_s: float) -> float:
        """How long records of an open lane have been there at every look without one being delivered."""
        if gate.out or not self.waits(topic):
            self._waiting_since_s.pop(topic, None)
            return 0.0
        return now_s - max(gate.moved_s, self._waiting_since_s.setdefault(topic, now_s))


def _stuck(topic: str, gate: Gate, now_s: float) -> Ending | None:
    """A unit is out for too long: nothing was declared of it, or it was excused for long enough."""
    stuck_s, oldest_s, units = gate.stuck_s(now_s), gate.oldest_s(now_s), list(gate.out)
    if stuck_s > gate.lane.stuck_after_s:
        return Ending(f"{topic}: un-acknowledged for {stuck_s:.0f} s, units {sorted(map(len, units))}", EXIT_STUCK)
    if oldest_s > gate.lane.give_up_after_s:
        away = {unit.waits_for for unit in units if unit.waits_for}
        return Ending(f"{topic}: un-acknowledged for {oldest_s:.0f} s, waits for {sorted(away)}", EXIT_STUCK)
    return None


def end_process(ending: Ending) -> None:
    """Write reason and stacks, and exit at once: nothing is committed, closed or flushed on the way."""
    log.critical("ending the process with code %d: %s", ending.exit_code, ending.reason)
    if ending.exit_code != EXIT_DISPLACED:
        faulthandler.dump_traceback(file=sys.__stderr__ or 2, all_threads=True)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(ending.exit_code)


def deadline(after_s: float, reason: str) -> threading.Timer:
    """Start a countdown that ends the process; cancel it when what it waits for has happened."""
    timer = threading.Timer(after_s, end_process, [Ending(reason, EXIT_UNSTOPPABLE)])
    timer.daemon = True
    timer.start()
    return timer
