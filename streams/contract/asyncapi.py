"""The contract as an AsyncAPI 3 document: servers, channels, operations and messages, all from the code they describe.

Channels are the topics that `marquee topics apply` makes, with their keys, partitions and configurations; operations
are Marquee's own: it receives what others send.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args, get_type_hints

import msgspec

from streams.contract import deadletters
from streams.contract.cloudevents import INPUT, TRACEPARENT, event_headers
from streams.contract.records import TopicSpec, topic_specs
from streams.contract.schema_rules import EVENT_TYPES
from streams.contract.schemas import RECORD_OF, WRITTEN_BY_OTHERS, Schema, components, event_of, event_title
from streams.settings import TOPIC_NAMES, Kafka, Settings, TopicName

VERSION = "1.0.0"
JSON = "application/json"
_BINDING = "0.5.0"
_TEXT: Schema = {"type": "string"}

#: Topics that Marquee reads besides those that others write: its workers learn from its learner there.
BETWEEN_OURSELVES: frozenset[TopicName] = frozenset({"observations", "counters", "models"})
_REMOVES: Mapping[TopicName, str] = {
    "catalog": "A null value removes the item.",
    "campaigns": "A null value stops the campaign at once.",
    "counters": "A null value says that the item's counts are no more.",
    "models": "A null value says that the snapshot's file is gone.",
}


class Example(msgspec.Struct, frozen=True):
    """A record that was on a topic: `headers` and `payload` are values of JSON."""

    name: str
    key: str
    headers: Mapping[str, str]
    payload: Any


def asyncapi(settings: Settings, examples: Mapping[TopicName, Sequence[Example]]) -> Schema:
    """The document for an installation's settings, with records of its topics as examples.

    Args:
        settings: names, partitions and configurations of topics are theirs.
        examples: by topic; of events, named by their types.
    """
    specs = {spec.topic: spec for spec in topic_specs(settings)}
    of_topic = {name: specs[settings.topics.name(name)] for name in TOPIC_NAMES}
    channels: dict[str, Schema] = {
        name: _channel(spec, _messages(name, spec.key, examples.get(name, ()))) for name, spec in of_topic.items()
    }
    letters = {_dead(name): settings.topics.dead_letters(name) for name in TOPIC_NAMES}
    buried = {"deadLetter": {"$ref": "#/components/messages/deadLetter"}}
    channels |= {name: _channel(specs[topic], buried) for name, topic in letters.items() if topic in specs}
    read = [name for name in TOPIC_NAMES if name in WRITTEN_BY_OTHERS | BETWEEN_OURSELVES]
    _, schemas = components([RECORD_OF[name] for name in TOPIC_NAMES if name in RECORD_OF], _SCHEMAS)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Marquee",
            "version": VERSION,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": JSON,
        "servers": dict(_servers()),
        "channels": channels,
        "operations": dict(_operations(read, [name for name in channels if name not in _ONLY_READ])),
        "components": {
            "schemas": schemas | {event_title(kind): event_of(kind, schemas["Event"]) for kind in EVENT_TYPES},
            "messages": {"deadLetter": _dead_letter()},
            "messageTraits": _TRAITS,
            "securitySchemes": dict(_logins()),
        },
    }


_DESCRIPTION = (
    "Behaviour events in, slates and ads out. What the words mean: docs/contract.md. Records are JSON; members nobody"
    " knows are ignored, and what we write leaves out members at their defaults."
)
_SCHEMAS = "#/components/schemas/{name}"
_ONLY_READ = frozenset({"events", "requests", "catalog", "campaigns"})


def _dead(name: str) -> str:
    return f"{name}_dlq"


def _messages(name: TopicName, key: str, examples: Sequence[Example]) -> Schema:
    """What may be on a topic, by the message's name: events by their types."""
    if name == "observations":
        summary = "Packed columns of a worker for the learner; no contract."
        return {"observation": {"contentType": "application/x-msgpack", "summary": summary, "payload": {}}}
    record = RECORD_OF[name].__name__
    of_record = {"$ref": _SCHEMAS.format(name=record)}
    if name != "events":
        said = {"summary": _summary(name), "examples": [_shown(example) for example in examples]}
        return {record[0].lower() + record[1:]: _message(name, record, key, of_record, said)}
    return {
        kind: _message(
            name,
            kind,
            key,
            {"$ref": _SCHEMAS.format(name=event_title(kind))},
            {"examples": [_shown(example) for example in examples if example.name == kind]},
        )
        for kind in EVENT_TYPES
    }


def _summary(name: TopicName) -> str:
    first = (RECORD_OF[name].__doc__ or "").partition("\n")[0]
    return " ".join([first, *([_REMOVES[name]] if name in _REMOVES else [])])


def _message(name: TopicName, title: str, key: str, payload: Schema, said: Schema) -> Schema:
    traits = _TRAITS_OF.get(name, [])
    return {
        "name": title,
        "contentType": JSON,
        "payload": payload,
        "bindings": {"kafka": {"key": _TEXT | {"description": key}, "bindingVersion": _BINDING}},
        **{word: value for word, value in said.items() if value},
        **({"traits": [{"$ref": f"#/components/messageTraits/{trait}"} for trait in traits]} if traits else {}),
    }


def _shown(example: Example) -> Schema:
    headers = {"headers": dict(example.headers)} if example.headers else {}
    return {"name": example.name, **headers, "payload": example.payload}


def _channel(spec: TopicSpec, messages: Schema) -> Schema:
    """A topic as it is made; whole numbers of its configuration are numbers."""
    config = {key: int(value) if value.isdecimal() else value for key, value in spec.config.items()}
    kafka = {
        "topic": spec.topic,
        "partitions": spec.partitions,
        "replicas": spec.replication,
        "topicConfiguration": config | {"cleanup.policy": [config["cleanup.policy"]]},
        "bindingVersion": _BINDING,
    }
    said = {"address": spec.topic, "description": f"Keyed by {spec.key}."}
    return {**said, "messages": messages, "bindings": {"kafka": kafka}}


def _operations(read: Iterable[str], written: Iterable[str]) -> Iterator[tuple[str, Schema]]:
    """What Marquee does: it receives and sends; an answer to a request goes where the request says."""
    for name in read:
        reply = {"channel": _of("slates"), "address": {"location": f"$message.header#/{REPLY_TO}"}}
        yield f"receive_{name}", _operation("receive", name) | ({"reply": reply} if name == "requests" else {})
    for name in written:
        yield f"send_{name}", _operation("send", name)


def _operation(action: Literal["receive", "send"], name: str) -> Schema:
    return {"action": action, "channel": _of(name)}


def _of(name: str) -> Schema:
    return {"$ref": f"#/channels/{name}"}


def _servers() -> Iterator[tuple[str, Schema]]:
    """One for each way in which a broker may be reached: with TLS or without, with each login or none."""
    hints = get_type_hints(Kafka)
    place = {
        "host": "{host}:{port}",
        "variables": {"host": {"default": "localhost"}, "port": {"default": "9092"}},
    }
    for protocol in get_args(hints["security_protocol"]):
        tls = protocol.endswith("SSL")
        kind = {"protocol": "kafka-secure" if tls else "kafka", "description": f"security.protocol={protocol}"}
        server = place | kind
        if not protocol.startswith("SASL"):
            yield protocol.lower(), server | ({"security": [_login("X509")]} if tls else {})
            continue
        mechanisms = get_args(hints["sasl_mechanism"])
        yield protocol.lower(), server | {"security": [_login(mechanism) for mechanism in mechanisms]}


def _login(name: str) -> Schema:
    return {"$ref": f"#/components/securitySchemes/{name}"}


def _logins() -> Iterator[tuple[str, Schema]]:
    kinds = {"PLAIN": "plain", "SCRAM-SHA-256": "scramSha256", "SCRAM-SHA-512": "scramSha512"}
    for mechanism in get_args(get_type_hints(Kafka)["sasl_mechanism"]):
        yield mechanism, {"type": kinds[mechanism], "description": f"sasl.mechanism={mechanism}"}
    yield "X509", {"type": "X509", "description": "A client's certificate, where the broker asks for one."}


def _headers(names: Iterable[str], required: Iterable[str] = ()) -> Schema:
    return {"headers": {"type": "object", "properties": dict.fromkeys(names, _TEXT), "required": list(required)}}


REPLY_TO = "reply_to"
_CLOUDEVENT = tuple(name for name, _ in event_headers("", "", "", 0))
_TRAITS: Schema = {
    "cloudEvent": {
        "description": "CloudEvents 1.0 in binary mode: `ce_id` is the same whenever the record is written again.",
        **_headers([*_CLOUDEVENT, INPUT, TRACEPARENT], [*_CLOUDEVENT, INPUT]),
    },
    "cloudEventOrNot": {
        "description": "CloudEvents 1.0 in binary mode, in structured mode, or plain JSON without any of these.",
        **_headers([*_CLOUDEVENT, TRACEPARENT, deadletters.REROUTED]),
    },
    "reply": {
        "description": "Another topic for the answer, of those that `slates.reply_topics` lists.",
        **_headers([REPLY_TO]),
    },
}
_TRAITS_OF: Mapping[TopicName, Sequence[str]] = {
    "events": ["cloudEventOrNot"],
    "catalog": ["cloudEventOrNot"],
    "campaigns": ["cloudEventOrNot"],
    "requests": ["cloudEventOrNot", "reply"],
    "slates": ["cloudEvent"],
    "ads": ["cloudEvent"],
}


def _dead_letter() -> Schema:
    """The original, byte for byte, with what was wrong in its headers."""
    d = deadletters
    names = [d.TOPIC, d.PARTITION, d.OFFSET, d.STAGE, d.CLASS, d.MESSAGE, d.CODE, d.ATTEMPTS]
    headers = _headers([*names, d.CUT], names)
    headers["headers"]["properties"] = {
        **headers["headers"]["properties"],
        d.CODE: {"enum": [str(code) for code in d.Code], "description": _codes()},
    }
    return {
        "name": "deadLetter",
        "summary": "A record nobody could read: key, value and headers as they were, then the headers named here.",
        "contentType": "application/octet-stream",
        "payload": {},
        **headers,
    }


def _codes() -> str:
    return "\n".join(f"`{code}`: {meaning}." for code, meaning in deadletters.MEANING.items())
