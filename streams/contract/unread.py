"""Members of records that nobody reads: a misspelt `value` costs a producer nothing but what it wanted to say.

Readers ignore them as they come, for the price of no look; whoever wants to know looks at some records afterwards.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple, get_args

import msgspec

from streams.contract import imp_records
from streams.contract.campaigns import Campaign
from streams.contract.cloudevents import open_envelope, read_headers
from streams.contract.fields import Record
from streams.contract.messages import RawRecord
from streams.contract.records import Event, Item, Request
from streams.settings import TopicName

KINDS: Mapping[TopicName, type[Record]] = {"events": Event, "requests": Request, "catalog": Item, "campaigns": Campaign}
"""What others write, by topic."""
_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_SHOWN_CHARACTERS = 64


class _Known(NamedTuple):
    """The members of a record by their names on the wire, and those of the records in them."""

    members: frozenset[str]
    inner: Mapping[str, "_Known"]


def unread_members(record: RawRecord, kind: type[Record] = Event) -> set[str]:
    """Members of a readable record that its `kind` has not, as `member` or `consent.member`.

    What is OpenRTB's is not looked into: its senders write much more than anybody reads.

    Raises:
        msgspec.MsgspecError, ValueError, RecursionError: it is no record. Its dead letter says why.
    """
    value = record.value or b""
    if read_headers(record.headers)[1]:
        value = open_envelope(value)[0]
    return set(_unread(value, _known(kind), ""))


def spoken(names: Iterable[str]) -> str:
    """Names as a line of a log may hold them: printable, and none of them long."""
    return ", ".join(ascii(name)[1:-1][:_SHOWN_CHARACTERS] for name in names)


def _unread(value: bytes | msgspec.Raw, known: _Known, within: str) -> Iterator[str]:
    members = _decode(value)
    yield from (within + name for name in members.keys() - known.members)
    for name in members.keys() & known.inner.keys():
        for each in _records(bytes(members[name])):
            yield from _unread(each, known.inner[name], f"{within}{name}.")


def _records(value: bytes) -> list[msgspec.Raw] | list[bytes]:
    """What may be one record, several, or null."""
    return _decode_list(value) if value.startswith(b"[") else [value] if value.startswith(b"{") else []


@cache
def _known(kind: type[Record]) -> _Known:
    fields = msgspec.structs.fields(kind)
    inner = {field.encode_name: within for field in fields if (within := _record_in(field.type)) is not None}
    return _Known(frozenset(field.encode_name for field in fields), {name: _known(of) for name, of in inner.items()})


def _record_in(of: Any) -> type[Record] | None:
    """The record that a member's type is, may be, or has a list of."""
    if isinstance(of, type) and issubclass(of, Record):
        return None if of.__module__ == imp_records.__name__ else of
    return next((found for each in get_args(of) if (found := _record_in(each)) is not None), None)
