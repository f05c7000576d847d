"""Publish events and read the slates they lead to, with nothing but aiokafka: what a producer and a consumer do.

Start `marquee up` first, then: python examples/e02_publish_and_read.py 127.0.0.1:PORT
"""

import asyncio
import json
import sys
import time

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer


async def main(bootstrap: str, user: str = "ann") -> dict[str, object]:
    """Publish one item and one play, and return the first slate for that user."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    consumer = AIOKafkaConsumer("marquee.slates.v1", bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await producer.start()
    await consumer.start()
    try:
        for name in ("m1", "m2", "m3"):
            item = {"item_id": name, "title": f"Film {name}", "categories": ["drama"]}
            await producer.send_and_wait("marquee.catalog.v1", json.dumps(item).encode(), key=name.encode())
        await asyncio.sleep(1)  # every worker has read the catalogue by then
        play = {"type": "play", "user_id": user, "item_id": "m1", "event_time": int(time.time() * 1000)}
        await producer.send_and_wait("marquee.events.v1", json.dumps(play).encode(), key=user.encode())
        async for record in consumer:
            if record.key == user.encode():
                slate: dict[str, object] = json.loads(record.value)
                return slate
        raise AssertionError("the consumer ended")
    finally:
        await consumer.stop()
        await producer.stop()


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1])), indent=2))
