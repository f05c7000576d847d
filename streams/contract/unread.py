"""Members of events that nobody reads: a misspelt `value` costs a producer nothing but what it wanted to say.

Readers ignore them as they come, for the price of no look; whoever wants to know looks at some records afterwards.
"""

import msgspec

from streams.contract.cloudevents import open_envelope, read_headers
from streams.contract.messages import RawRecord
from streams.contract.records import Consent, Context, Event

_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_NULL = msgspec.Raw(b"null")
_MEMBERS = frozenset(Event.__struct_fields__)
_INNER = {"context": frozenset(Context.__struct_fields__), "consent": frozenset(Consent.__struct_fields__)}


def unread_members(record: RawRecord) -> set[str]:
    """Members of a readable event that `Event` has not, as `member` or `consent.member`."""
    value = record.value or b""
    if read_headers(record.headers)[1]:
        value = open_envelope(value)[0]
    event = _decode(value)
    unread = event.keys() - _MEMBERS
    for name, known in _INNER.items():
        if (inner := event.get(name, _NULL)) != _NULL:
            unread |= {f"{name}.{each}" for each in _decode(inner).keys() - known}
    return unread
