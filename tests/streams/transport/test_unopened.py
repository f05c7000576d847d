"""A batch that would fill the memory is not opened, and its records are too large; all others are read as ever."""

import gzip
import json
import random
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import cramjam
import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from embeddings.events import CONSENT_ALL, Source
from streams.contract.consent import Judge
from streams.contract.deadletters import Code, dead_letter_record
from streams.contract.decode import decode
from streams.contract.parsing import Rules
from streams.transport import unopened
from streams.transport.unopened import MOST_BYTES, most_bytes
from tests.streams.builders import NOW_MS
from tests.streams.transport.test_header_names import fetched

CODECS: dict[int, Callable[[bytes], Any]] = {1: gzip.compress, 3: cramjam.lz4.compress, 4: cramjam.zstd.compress}
EVENT = b'{"type":"play","user_id":"u","item_id":"i","event_time":%d}' % NOW_MS


def batch(first: int, values: list[bytes], codec: int) -> bytes:
    builder = DefaultRecordBatchBuilder(2, codec, 0, -1, -1, -1, 1 << 30)
    for n, value in enumerate(values):
        builder.append(n, NOW_MS, b"u", value, [])
    whole = bytearray(builder.build())
    whole[:8] = first.to_bytes(8, "big")
    return bytes(whole)


@pytest.mark.parametrize("codec", CODECS, ids=["gzip", "lz4", "zstd"])
def test_what_it_may_become_is_told_without_opening_it(codec: int) -> None:
    chance = random.Random(codec)
    for size in (0, 1, 500, 140_000, 300_000):
        for letters in (1, 3, 256):
            value = bytes(chance.choices(range(letters), k=size))
            packed = bytes(CODECS[codec](value))
            assert len(value) <= most_bytes(codec, packed), (size, letters)
            assert 2 * len(value) <= most_bytes(codec, packed * 2), "of two in a row"
            for cut in range(0, len(packed), len(packed) // 7 + 1):
                most_bytes(codec, packed[:cut])


def test_what_fits_is_read_however_small_its_blocks_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unopened, "MOST_BYTES", 600_000)
    mixed = b"".join(random.Random(1).randbytes(9_000) + bytes(9_000) for _ in range(32))
    whole = batch(0, [mixed], 4)
    assert len(mixed) < 600_000 < most_bytes(4, whole[61:])
    assert [record.value for record in fetched(whole).getall(None)] == [mixed]
    (sealed,) = fetched(batch(0, [mixed + bytes(30_000)], 4)).getall(None)
    assert isinstance(sealed.value, unopened.Unopened)


@pytest.mark.parametrize("codec", CODECS, ids=["gzip", "lz4", "zstd"])
def test_a_bomb_becomes_letters_and_what_stands_around_it_is_read(codec: int) -> None:
    bomb = batch(1, [b"a" * (MOST_BYTES + 1), EVENT], codec)
    records = fetched(batch(0, [EVENT], codec) + bomb + batch(3, [EVENT] * 2, codec)).getall(None)
    assert [record.offset for record in records] == [0, 1, 2, 3, 4]
    decoded = decode([(Source("events", 0), records)], Rules(judge=Judge(CONSENT_ALL)), NOW_MS)
    assert len(decoded.events) == 3
    assert [(letter.offset, letter.code) for letter in decoded.dead] == [(1, Code.too_large), (2, Code.too_large)]
    letter = dead_letter_record(decoded.dead[0], "events.dlq")
    assert letter.value is not None
    assert json.loads(letter.value)["sha256"] == sha256(bomb).hexdigest()
