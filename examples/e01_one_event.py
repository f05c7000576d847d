"""One person, three events, one slate: the whole service in this process, without Kafka or Redis.

Run it: python examples/e01_one_event.py
"""

import numpy as np

from embeddings.events import CONSENT_ALL, Source
from embeddings.index import build_index
from embeddings.items import ItemFacts, Items
from embeddings.memory import MemoryUserStore
from streams.contract.consent import Judge
from streams.contract.messages import Part
from streams.contract.parsing import Rules
from streams.contract.records import Event, decode_slate, encode
from streams.lab.evaluation import LogRecord
from streams.serving.live_model import LiveModel, Serving
from streams.serving.pipeline import Recommender
from streams.serving.scoring import Scorer
from streams.settings import Settings

NOW_S = 1_767_225_600
EVENTS = Source("marquee.events.v1", 0)


def main() -> list[str]:
    """Tell the service of three plays and return the titles it offers then."""
    settings, items = Settings(), Items()
    serving = Serving(items, build_index, LiveModel.empty(items, build_index, 64), now_s=lambda: NOW_S)
    serving.catalogue(
        [ItemFacts(name=f"m{n}", title=f"Film {n}", categories=("drama",), added_s=NOW_S - n) for n in range(1, 9)], []
    )
    users = MemoryUserStore()
    users.claim([EVENTS])
    recommender = Recommender(
        users=users,
        scorer=Scorer(serving, settings),
        rules=Rules(judge=Judge(CONSENT_ALL)),
        settings=settings,
        now_ms=lambda: NOW_S * 1000,
    )
    plays = [Event(type="play", user_id="u1", item_id=f"m{n}", event_time=NOW_S * 1000) for n in (1, 2, 3)]
    records = [LogRecord(n, NOW_S * 1000, b"u1", encode(play), ()) for n, play in enumerate(plays)]
    answer = recommender.respond([Part(EVENTS, records, last=2, committed=-1)])
    recommender.store(recommender.keep(answer))
    slate = decode_slate(answer.slates[0].value)
    rows = items.ids.rows(np.array([answer.slates[0].item_N[: len(slate.items)]], np.uint64))[0]
    return [items.titles[row] for row in rows.tolist()]


if __name__ == "__main__":
    for title in main():
        print(title)
