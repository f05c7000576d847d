"""What is on the `models` topic can be read by the releases before and after."""

from pathlib import Path

from streams.contract.manifests import PIN_KEY, Announcements, key_of, pinned
from streams.contract.records import ModelManifest, decode_model, encode

GOLDEN = Path(__file__).parent / "golden"


def a_record(version: int, **fields: str) -> ModelManifest:
    return ModelManifest(version=str(version), uri=f"file:///{version}", sha256=f"{version:064d}", **fields)  # type: ignore[arg-type]


def says(*records: tuple[bytes, ModelManifest | None]) -> Announcements:
    said = Announcements()
    for key, record in records:
        said.take(key, record)
    return said


def test_a_pin_is_written_and_read_as_ever() -> None:
    record = decode_model((GOLDEN / "models.v1.json").read_bytes())
    golden = (GOLDEN / "models.pin.v1.json").read_bytes()
    assert encode(pinned(record)) == golden
    assert decode_model(golden) == pinned(record)
    assert (PIN_KEY, key_of(7)) == (b"pin", b"snapshot/7")


def test_a_release_that_knows_no_pins_takes_the_newest_version_on() -> None:
    """It took the last record of kind `snapshot` with a number as version, whatever its key."""
    values = [encode(record) for record in (a_record(7), a_record(8), pinned(a_record(7)))]
    read = [decode_model(value) for value in values]
    assert [r.version for r in read if r.kind == "snapshot" and r.version.isdecimal()][-1] == "8"


def test_what_a_release_before_announced_is_read() -> None:
    said = says((b"snapshot", a_record(6)), (b"snapshot", a_record(7)))
    assert list(said.versions) == [7]
    assert said.obsolete({7}) == []
    said.take(key_of(7), a_record(7))
    assert said.obsolete({7}) == [b"snapshot"], "it is announced under its own key by now"


def test_the_last_record_of_a_key_counts() -> None:
    said = says((key_of(8), a_record(8)), (key_of(7), a_record(7)), (key_of(9), a_record(9)), (key_of(9), None))
    assert list(said.versions) == [7, 8]
    assert said.obsolete({8, 9}) == [key_of(7)]
    said.take(key_of(8), a_record(8, kind="another"))
    assert list(said.versions) == [7]


def test_a_pin_is_fetched_from_where_its_version_was_announced_last() -> None:
    said = says((key_of(7), a_record(7)), (PIN_KEY, pinned(a_record(7))))
    moved = ModelManifest(version="7", uri="http://elsewhere.test/7", sha256=a_record(7).sha256)
    said.take(key_of(7), moved)
    assert said.pin == moved
    said.take(key_of(7), ModelManifest(version="7", uri="file:///other", sha256="0" * 64))
    assert said.pin == pinned(a_record(7)), "that is another file"
    said.take(key_of(7), None)
    assert said.pin == pinned(a_record(7))
    said.take(PIN_KEY, None)
    assert said.pin is None
