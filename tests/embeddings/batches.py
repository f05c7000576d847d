"""Small logs of one, two or three people, as the folds meet them."""

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from embeddings.events import CONSENT_ALL, Action, EventBatch, Source
from embeddings.state_columns import source_code
from tests.embeddings.oracle import Event

LATENESS_S = 600
SOURCES = (Source("events", 0), Source("events", 1), Source("more", 0))
CODES = np.array([source_code(["events", "more"], source) for source in SOURCES], np.int32)
DAY = 86_400


def an_event(offset: int, item: int = 1, time_s: int = 1_000_000, action: int = Action.play, **more: int) -> Event:
    return Event(more.get("source", 0), offset, time_s, item, action, more.get("dedupe", 0), more.get("share", 0))


def a_batch(rows: Sequence[tuple[str, Event]], users: Sequence[str] | None = None, refused: int = 0) -> EventBatch:
    user_ids = tuple(users or dict.fromkeys(user for user, _ in rows))
    place = {user: n for n, user in enumerate(user_ids)}
    events = [event for _, event in rows]

    def column(name: str, kind: type[np.generic]) -> np.ndarray:
        return np.array([getattr(event, name) for event in events], kind)

    return EventBatch(
        user_ids=user_ids,
        sources=SOURCES,
        user_B=np.array([place[user] for user, _ in rows], np.int32),
        item_B=column("item", np.uint64),
        action_B=column("action", np.uint8),
        value_B=column("share", np.float32) / 255,
        time_s_B=column("time_s", np.int64),
        source_B=column("source", np.int32),
        offset_B=column("offset", np.int64),
        dedupe_B=column("dedupe", np.uint32),
        consent_B=np.full(len(rows), CONSENT_ALL, np.uint8),
        refused_B=np.full(len(rows), refused, np.uint8),
    )


# Steps between events: mostly seconds, sometimes back, sometimes days and years, so that every exponent occurs.
STEP_S = st.one_of(
    st.integers(0, 30), st.integers(-LATENESS_S - 200, 200), st.integers(0, 5 * DAY), st.integers(0, 2000 * DAY)
)
ROW = st.tuples(
    st.sampled_from("abc"), st.integers(0, 2), st.integers(1, 90), st.integers(0, 20), st.integers(0, 12), STEP_S
)


def a_log(rows: Sequence[tuple[str, int, int, int, int, int]]) -> list[tuple[str, Event]]:
    """Rows with offsets and clocks; each tenth offset is delivered a second time later on."""
    time_s, log = {}, []
    for n, (user, source, item, action, dedupe, step_s) in enumerate(rows):
        time_s[user] = max(min(time_s.get(user, 1_000_000) + step_s, 2**32 - 1), 0)
        share = {Action.progress: n % 256, Action.complete: 255}.get(Action(action), 0) if action < 14 else 0
        log.append((user, Event(source, n, time_s[user], item, action, dedupe, share)))
        if n % 10 == 9:
            log.append(log[-5])
    return log
