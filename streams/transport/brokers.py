"""Where the brokers are, when those that a client knows do not answer any more: all of them may have moved."""

import asyncio
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

_PATIENCE_S = 3.0
_ADDRESS = re.compile(r"\('([^']+)', ([0-9]+),")


def unanswered(error: BaseException) -> str | None:
    """Which addresses nobody answers at, where that is what aiokafka says; it shows them as it keeps them.

    >>> unanswered(KafkaError("Unable to bootstrap from [('k', 9092, <AddressFamily.AF_INET: 2>)]"))
    'no broker answers at k:9092; is it running, and is kafka.bootstrap (MARQUEE_KAFKA__BOOTSTRAP) right?'
    """
    if "Unable to bootstrap from" not in str(error):
        return None
    places = [(f"[{host}]" if ":" in host else host) + f":{port}" for host, port in _ADDRESS.findall(str(error))]
    asked = "is it running, and is kafka.bootstrap (MARQUEE_KAFKA__BOOTSTRAP) right?"
    return f"no broker answers at {', '.join(places)}; {asked}"


async def greet(options: Mapping[str, Any]) -> None:
    """Make sure that a broker answers before something waits for one.

    Raises:
        aiokafka.errors.KafkaConnectionError: none does.
    """
    client = AIOKafkaClient(**options)
    try:
        await client.bootstrap()
    finally:
        await client.close()


async def answer(client: Any, options: Mapping[str, Any]) -> bool:
    """Whether a broker answers an aiokafka client, at the address it had last or at the one in the client's options.

    Then the client's metadata are new. aiokafka itself asks the configured address only at its start.
    """
    for ask in (client.force_metadata_update, lambda: _elsewhere(client, options)):
        with suppress(KafkaError, OSError, TimeoutError):
            async with asyncio.timeout(_PATIENCE_S):
                if await ask():
                    return True
    return False


async def _elsewhere(client: Any, options: Mapping[str, Any]) -> bool:
    """Ask with another client: the answer to its first question holds no topics, and would pass for all there are."""
    seeker = AIOKafkaClient(**options)
    try:
        await seeker.bootstrap()
        client.cluster._brokers = dict(seeker.cluster._brokers)
    finally:
        await seeker.close()
    return bool(await client.force_metadata_update())
