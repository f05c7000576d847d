"""A log on disk as records of the contract: catalogue and events, ready to be published.

Publish time is now, event times are the log's own or shifted so that the last one is now: retention and expiry then
mean what they should on an old log.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator
from itertools import islice

import numpy as np
from xxhash import xxh3_128_hexdigest

from streams.contract import fields, records
from streams.contract.cloudevents import event_headers
from streams.contract.messages import Outgoing
from streams.lab.columns import UnreadableLog
from streams.lab.datasets import Log
from streams.settings import Settings
from streams.transport.publishing import Publisher

KeyValueHeaders = tuple[bytes, bytes, list[tuple[str, bytes]]]
_CHUNK = 1_000


def catalogue_records(log: Log) -> Iterator[KeyValueHeaders]:
    """One `catalog` record per item of the log, bare where nothing else is known of it: what has none is not shown."""
    for name in dict.fromkeys((*log.items, *log.item_R)):
        facts = log.facts(name)
        item = records.Item(item_id=name, title=facts.title, categories=facts.categories, year=facts.year or None)
        yield name.encode(), records.encode(item), []


def event_records(log: Log, *, liked_from: float = 4, shift_s: int = 0) -> Iterator[KeyValueHeaders]:
    """One `events` record per event, in the log's order: a `like` from a rating of `liked_from` up, else a `play`.

    Both take the item; `value` carries the rating. `ce_id` is made of what the event says, in any file, and of how many
    like it came before in the log, so that an event published twice counts once while a worker remembers it. Where
    a log has no times, what else is in the log and the event's place are part of it.
    """
    source = "/replay" if log.timed else f"/replay/{_digest(log)}"
    rows = zip(log.user_R, log.item_R, log.rating_R.tolist(), log.time_s_R.tolist(), strict=True)
    same: Counter[str] = Counter()
    last_s = None
    for user, item, rating, time_s in rows:
        if time_s != last_s:
            same.clear()
            last_s = time_s
        identity = xxh3_128_hexdigest(json.dumps([user, item, rating, time_s]).encode())
        event = records.Event(
            type="like" if rating and rating >= liked_from else "play",
            user_id=user,
            item_id=item,
            event_time=(time_s + shift_s) * 1000,
            value=rating or None,
        )
        headers = event_headers(f"{identity}-{same[identity]}", "marquee.event.v1", source, time_ms=event.event_time)
        same[identity] += 1
        yield user.encode(), records.encode(event), list(headers)


def _digest(log: Log) -> str:
    return xxh3_128_hexdigest(json.dumps([log.user_R, log.item_R, log.rating_R.tolist()]).encode())


def rating_remarks(log: Log, settings: Settings) -> list[str]:
    """What to say about the scale of a log's ratings where nobody said from where on they are likes."""
    highest = float(log.rating_R.max(initial=0))
    if highest <= 5 or "liked_from" in settings.events.model_fields_set:
        return []
    return [
        f"ratings go up to {highest:g}; from {settings.events.liked_from:g} up they are likes: set events.liked_from"
    ]


def _shift_s(log: Log, settings: Settings, now_s: int, shift: bool) -> int:
    """What is added to the log's times, so that the last one is now.

    Raises:
        UnreadableLog: then, or as they are, some are times that a worker does not take. Nothing is published.
    """
    shift_s = now_s - int(log.time_s_R[-1]) if shift else 0
    first_ms, last_ms = ((int(log.time_s_R[place]) + shift_s) * 1000 for place in (0, -1))
    if first_ms < fields.FIRST_MS or last_ms > now_s * 1000 + settings.events.max_future_ms:
        said = " to ".join(str(np.datetime64(ms, "ms"))[:10] for ms in (first_ms, last_ms))
        more = "shifted so that the last is now, " if shift else ""
        raise UnreadableLog(f"{log.name}: {more}times are from {said}; a worker takes those from March 1973 until now")
    return shift_s


async def publish_log(log: Log, settings: Settings, *, rate: float = 0, shift: bool = True) -> float:
    """Publish catalogue and events, `rate` per second (0: as fast as the broker takes them); returns the seconds.

    Raises:
        UnreadableLog: times are none that a worker takes. Nothing is published.
        PublishFailed: the broker refused records; those before may have been written.
    """
    shift_s = _shift_s(log, settings, int(time.time()), shift)
    publisher = Publisher(settings.kafka.client_options(), idempotent=settings.kafka.idempotent)
    began = time.monotonic()
    try:
        catalogue = [Outgoing(settings.topics.name("catalog"), *record) for record in catalogue_records(log)]
        await publisher.send_all(catalogue)
        events = event_records(log, liked_from=settings.events.liked_from, shift_s=shift_s)
        sent = 0
        while batch := list(islice(events, _CHUNK if not rate else max(1, int(rate / 50)))):
            await publisher.send_all(Outgoing(settings.topics.name("events"), *record) for record in batch)
            sent += len(batch)
            if rate:
                await asyncio.sleep(max(0.0, began + sent / rate - time.monotonic()))
    finally:
        await publisher.stop()
    return time.monotonic() - began
