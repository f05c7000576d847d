"""`marquee evaluate --protocol leave-last-out`: people come back, and are asked for once.

All but each person's last event is learned, in time order; one model, after all these rows. Then everybody is answered
through `Answerer.respond`, as requests are, and the slate is looked through for what they took last.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from embeddings.events import Source
from embeddings.ids import item_ids
from streams.contract import records
from streams.contract.messages import Part
from streams.lab.baselines import Quality
from streams.lab.datasets import Log
from streams.lab.evaluation import Bench, LogRecord, admit, batches, evaluation_settings, place_of
from streams.serving.requests import Answerer
from streams.settings import Settings

Ask = Literal["event", "later"]
_REQUESTS = Source("requests", 0)
_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class LeftOut:
    """How well people's last events were foreseen, and how well by what is popular among what they have not taken."""

    marquee: Quality
    popular: Quality


def run_leave_last_out(
    log: Log, settings: Settings, ask: Ask, *, batch: int = 64, say: Callable[[str], None] = lambda text: None
) -> LeftOut:
    """Ask for everybody who has taken something before their last event, and last something that was new to them.

    Args:
        log: events in time order; of those of one time, the later in the file is the last.
        settings: as they serve.
        ask: `later` asks at the log's last timestamp; `event` with the same state at each person's last event that was
            learned, when a slate of it would have been written.
        batch: events a batch while learning.
        say: told how far it is.
    """
    torch.set_num_threads(1)
    row_of = {user: r for r, user in enumerate(log.user_R)}
    left_P = np.sort(np.array(list(row_of.values()), np.intp))
    past = log.at(np.setdiff1d(np.arange(len(log)), left_P))
    seen_s = dict(zip(past.user_R, past.time_s_R.tolist(), strict=True))
    taken = set(zip(past.user_R, past.item_R, strict=True))
    who_P = [log.user_R[r] in seen_s and (log.user_R[r], log.item_R[r]) not in taken for r in left_P.tolist()]
    left = log.at(left_P[who_P])
    bench = Bench(evaluation_settings(settings), past)
    known: set[str] = set()
    for events in batches(past, settings, batch):
        bench.step(events)
        admit(bench, past, [past.item_R[event.offset] for event in events], known)
    bench.refresh()
    say(f"{len(past):,} events learned, {bench.snapshots} snapshots; {len(left):,} people are asked for")
    shift_s = bench.now_ms // 1000 - int(past.time_s_R[-1])
    end_s = max(int(log.time_s_R[-1]) + shift_s, bench.now_ms // 1000)
    bench.now_ms = end_s * 1000
    asked_s = [end_s if ask == "later" else seen_s[user] + shift_s for user in left.user_R]
    return LeftOut(Quality.of(_ranks(bench, left, asked_s)), Quality.of(_popular(past, left)))


def _ranks(bench: Bench, left: Log, asked_s: list[int]) -> NDArray[np.float64]:
    """The place of what each person took in the slate they are answered with."""
    serves = bench.recommender
    answerer = Answerer(
        users=serves.users,
        scorer=serves.scorer,
        rules=serves.rules,
        settings=serves.settings,
        now_ms=lambda: bench.now_ms,
    )
    rank_P = np.empty(len(left))
    for first in range(0, len(left), _AT_ONCE):
        people = range(first, min(first + _AT_ONCE, len(left)))
        requests = [_request(p, left.user_R[p], asked_s[p], bench.now_ms) for p in people]
        slates, dead = answerer.respond([Part(_REQUESTS, requests, people[-1], -1)])
        if dead:
            raise RuntimeError(dead[0].detail)
        for p, slate, item in zip(people, slates, item_ids([left.item_R[p] for p in people]).tolist(), strict=True):
            rank_P[p] = place_of(item, slate.item_N)
    return rank_P


def _request(offset: int, user: str, time_s: int, now_ms: int) -> LogRecord:
    value = records.encode({"request_id": f"r{offset}", "user_id": user, "event_time": time_s * 1000})
    return LogRecord(offset, now_ms, user.encode(), value, ())


def _popular(past: Log, left: Log) -> NDArray[np.float64]:
    """The place of what each person took among what most have taken and they have not; ties by who came first."""
    order = {item: place for place, (item, _) in enumerate(Counter(past.item_R).most_common())}
    taken_of: dict[str, list[int]] = {}
    for user, item in zip(past.user_R, past.item_R, strict=True):
        taken_of.setdefault(user, []).append(order[item])
    places = [order.get(item, 10**9) for item in left.item_R]
    better = [np.unique(taken_of[user]) for user in left.user_R]
    return np.array([place - (taken < place).sum() for place, taken in zip(places, better, strict=True)], np.float64)
