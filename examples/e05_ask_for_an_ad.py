"""Publish a campaign, ask for an ad beside a slate, tell that it was seen; its impression is paid for then.

Start `marquee up` first, then: python examples/e05_ask_for_an_ad.py 127.0.0.1:PORT
"""

import asyncio
import json
import sys
import time
import uuid

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

CAMPAIGN = {
    "campaign_id": "spring",
    "advertiser": "juniper-rail",
    "adomain": ["juniper-rail.example"],
    "line_items": [
        {
            "id": "fares",
            "bid_micros": 6_000_000,  # per thousand impressions, in micros of the campaign's currency
            "budget_micros": 50_000_000,
            "delivery": "asap",
            "targeting": {"country": ["DE", "FR"]},
            "creatives": [{"crid": "banner", "format": "banner", "approved": True}],
        }
    ],
}


async def main(bootstrap: str, user: str = "ann") -> dict[str, object]:
    """Publish a campaign, ask until it is shown, and return what was decided about the slot."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    consumer = AIOKafkaConsumer("marquee.slates.v1", bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await producer.start()
    await consumer.start()
    try:
        await producer.send_and_wait("marquee.campaigns.v1", json.dumps(CAMPAIGN).encode(), key=b"spring")
        for _ in range(60):
            ad = await ask(producer, consumer, user)
            if ad.get("filled"):
                break
            await asyncio.sleep(0.5)  # an installation that sells for the first time opens its ledger in some seconds
        seen = {"type": "impression", "user_id": user, "decision_id": ad["decision_id"]}
        seen["event_time"] = time.time_ns() // 1_000_000
        await producer.send_and_wait("marquee.events.v1", json.dumps(seen).encode(), key=user.encode())
        return ad
    finally:
        await consumer.stop()
        await producer.stop()


async def ask(producer: AIOKafkaProducer, consumer: AIOKafkaConsumer, user: str) -> dict[str, object]:
    """Ask for one banner of a floor of 1.50 dollars per thousand, and no items beside it."""
    request = {
        "request_id": uuid.uuid4().hex,
        "user_id": user,
        "n": 0,
        "context": {"country": "DE"},
        "imp": [{"id": "1", "tagid": "beside the film", "banner": {"w": 300, "h": 250}, "bidfloor": 1.5}],
    }
    await producer.send_and_wait("marquee.requests.v1", json.dumps(request).encode(), key=user.encode())
    async for record in consumer:
        slate = json.loads(record.value)
        if slate.get("request_id") == request["request_id"]:
            ad: dict[str, object] = slate["ads"][0]
            return ad
    raise AssertionError("the consumer ended")


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1])), indent=2))
