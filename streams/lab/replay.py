"""A log on disk as records of the contract: catalogue and events, ready to be published.

Publish time is now, event times are the log's own or shifted so that the last one is now: retention and expiry then
mean what they should on an old log.
"""

import asyncio
import time
from collections.abc import Iterator
from itertools import islice

from streams.contract import records
from streams.contract.cloudevents import event_headers
from streams.contract.messages import Outgoing
from streams.lab.datasets import Log
from streams.settings import Settings
from streams.transport.publishing import Publisher

KeyValueHeaders = tuple[bytes, bytes, list[tuple[str, bytes]]]
LIKED_FROM = 4.0
_CHUNK = 1_000


def catalogue_records(log: Log) -> Iterator[KeyValueHeaders]:
    """One `catalog` record per known item of the log."""
    for name, facts in log.items.items():
        item = records.Item(item_id=name, title=facts.title, categories=facts.categories, year=facts.year or None)
        yield name.encode(), records.encode(item), []


def event_records(log: Log, *, shift_s: int = 0) -> Iterator[KeyValueHeaders]:
    """One `events` record per event, in the log's order: a `like` from `LIKED_FROM` stars up, else a `play`.

    Both take the item; `value` carries the rating. `ce_id` is the event's place in the log, so that a log published
    twice counts once within the dedupe horizon.
    """
    source = f"/replay/{log.name}"
    rows = zip(log.user_R, log.item_R, log.rating_R.tolist(), log.time_s_R.tolist(), strict=True)
    for r, (user, item, rating, time_s) in enumerate(rows):
        event = records.Event(
            type="like" if rating >= LIKED_FROM else "play",
            user_id=user,
            item_id=item,
            event_time=(time_s + shift_s) * 1000,
            value=rating or None,
        )
        headers = event_headers(str(r), "marquee.event.v1", source, time_ms=(time_s + shift_s) * 1000)
        yield user.encode(), records.encode(event), list(headers)


async def publish_log(log: Log, settings: Settings, *, rate: float = 0, shift: bool = True) -> float:
    """Publish catalogue and events, `rate` per second (0: as fast as the broker takes them); returns the seconds.

    Raises:
        PublishFailed: the broker refused records; those before may have been written.
    """
    publisher = Publisher(settings.kafka.client_options(), idempotent=settings.kafka.idempotent)
    began = time.monotonic()
    try:
        catalogue = [Outgoing(settings.topics.name("catalog"), *record) for record in catalogue_records(log)]
        await publisher.send_all(catalogue)
        events = event_records(log, shift_s=int(time.time()) - int(log.time_s_R[-1]) if shift else 0)
        sent = 0
        while batch := list(islice(events, _CHUNK if not rate else max(1, int(rate / 50)))):
            await publisher.send_all(Outgoing(settings.topics.name("events"), *record) for record in batch)
            sent += len(batch)
            if rate:
                await asyncio.sleep(max(0.0, began + sent / rate - time.monotonic()))
    finally:
        await publisher.stop()
    return time.monotonic() - began
