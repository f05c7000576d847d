"""Ask for a slate now, for a surface, without some items; the answer comes on the slates topic with the request's id.

Start `marquee up` first, then: python examples/e03_ask.py 127.0.0.1:PORT
"""

import asyncio
import json
import sys
import uuid

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer


async def main(bootstrap: str, user: str = "ann", exclude: tuple[str, ...] = ("m2",)) -> dict[str, object]:
    """Publish a request and return its answer."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    consumer = AIOKafkaConsumer("marquee.slates.v1", bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await producer.start()
    await consumer.start()
    try:
        request_id = uuid.uuid4().hex
        request = {"request_id": request_id, "user_id": user, "surface": "home", "n": 5, "exclude": exclude}
        await producer.send_and_wait("marquee.requests.v1", json.dumps(request).encode(), key=user.encode())
        async for record in consumer:
            slate: dict[str, object] = json.loads(record.value)
            if slate.get("request_id") == request_id:
                return slate
        raise AssertionError("the consumer ended")
    finally:
        await consumer.stop()
        await producer.stop()


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1])), indent=2))
