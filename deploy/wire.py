"""The two Kafka requests that keeping a broker takes: who is in the cluster, and create this topic.

Written out here because this package may not import a Kafka client. Old, non-flexible versions of both requests, which
Apache Kafka 4 and the embedded broker answer alike. Layout: the Kafka protocol guide, Metadata v4, CreateTopics v2.
"""

import socket
import struct
import time
from collections.abc import Mapping, Sequence

_METADATA, _CREATE_TOPICS = 3, 19
_TOPIC_EXISTS = 36


class TopicRefused(Exception):
    """The broker would not create a topic; the message carries its error code and text."""


def brokers(port: int) -> int:
    """How many brokers the one on 127.0.0.1:`port` knows; 0 when it does not answer."""
    try:
        reply = _ask(port, _METADATA, 4, struct.pack(">i?", 0, False), timeout_s=1.0)
        return int(reply.int32())
    except (OSError, struct.error):
        return 0


def create_topic(
    port: int, name: str, partitions: int, replication: int, config: Mapping[str, object], timeout_s: float = 15.0
) -> None:
    """Create a topic and return when every partition has a leader. A topic that exists already is left as it is.

    Raises:
        TopicRefused: the broker said no, or no leader was found in time.
    """
    pairs = b"".join(_string(key) + _string(str(value)) for key, value in config.items())
    topic = _string(name) + struct.pack(">ihii", partitions, replication, 0, len(config)) + pairs
    body = struct.pack(">i", 1) + topic + struct.pack(">i?", int(timeout_s * 1000), False)
    reply = _ask(port, _CREATE_TOPICS, 2, body, timeout_s)
    reply.int32(), reply.string()
    code, text = reply.int16(), reply.string()
    if code not in (0, _TOPIC_EXISTS):
        raise TopicRefused(f"{name}: error {code} {text}")
    _wait_for_leaders(port, name, partitions, time.monotonic() + timeout_s)


def _wait_for_leaders(port: int, name: str, partitions: int, deadline: float) -> None:
    while (found := len(_leaders(port, name))) < partitions:
        if time.monotonic() > deadline:
            raise TopicRefused(f"{name}: {found} of {partitions} partitions have a leader")
        time.sleep(0.02)


def _leaders(port: int, name: str) -> Sequence[int]:
    """The leaders of a topic's partitions, those without one left out."""
    reply = _ask(port, _METADATA, 4, struct.pack(">i", 1) + _string(name) + b"\0", timeout_s=5.0)
    for _ in range(reply.int32()):
        reply.int32(), reply.string(), reply.int32(), reply.string()
    reply.string(), reply.int32(), reply.int32()
    reply.int16(), reply.string(), reply.int8()
    leaders = []
    for _ in range(reply.int32()):
        reply.int16(), reply.int32()
        leaders.append(reply.int32())
        for _ in range(2):  # replicas, in-sync replicas
            reply.skip(4 * reply.int32())
    return [leader for leader in leaders if leader >= 0]


class _Reply:
    """A response read field by field."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def _take(self, form: str) -> int:
        (value,) = struct.unpack_from(form, self._data, self._at)
        self._at += struct.calcsize(form)
        return int(value)

    def int8(self) -> int:
        return self._take(">b")

    def int16(self) -> int:
        return self._take(">h")

    def int32(self) -> int:
        return self._take(">i")

    def skip(self, size: int) -> None:
        self._at += size

    def string(self) -> str:
        size = max(self.int16(), 0)
        self.skip(size)
        return self._data[self._at - size : self._at].decode()


def _string(text: str) -> bytes:
    return struct.pack(">h", len(text.encode())) + text.encode()


def _ask(port: int, api: int, version: int, body: bytes, timeout_s: float) -> _Reply:
    request = struct.pack(">hhi", api, version, 1) + _string("marquee") + body
    with socket.create_connection(("127.0.0.1", port), timeout_s) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        with connection.makefile("rb") as stream:
            (size,) = struct.unpack(">i", stream.read(4))
            reply = _Reply(stream.read(size))
    reply.skip(8)  # correlation id, throttle time
    return reply
