"""What a worker publishes, as records: slates, and what nobody could read or answer."""

from collections.abc import Sequence

from streams.contract.cloudevents import echo, event_headers
from streams.contract.deadletters import DeadLetter, dead_letter_record
from streams.contract.messages import Outgoing
from streams.serving.slates import PublishedSlate


def slate_record(slate: PublishedSlate, topic: str) -> Outgoing:
    """A slate on its topic, keyed by user, with CloudEvents headers and the place of its trigger."""
    trigger = slate.trigger
    passed = echo(*trigger.source, trigger.offset, trigger.headers)
    headers = event_headers(slate.slate_id, "marquee.slate.v1", "marquee", trigger.event_ms, passed)
    return Outgoing(topic, trigger.user_id.encode(), slate.value, headers)


def dead_letters(letters: Sequence[DeadLetter], topic: str) -> list[Outgoing]:
    """Dead letters as records of their topic."""
    return [dead_letter_record(letter, topic) for letter in letters]
