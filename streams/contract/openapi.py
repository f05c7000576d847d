"""The HTTP interface of a worker as an OpenAPI 3.1 document, from the types that read and write it."""

from collections.abc import Mapping
from typing import Any

from streams.contract.posted import BATCH, EVENT, JSON, Problem, Receipt
from streams.contract.records import Event, Request, Slate
from streams.contract.schemas import components

_VERSION = "1"
_TOKEN: list[dict[str, list[str]]] = [{"token": []}, {}]
_USER_ID = {"type": "string", "minLength": 1, "maxLength": 512}
_PLAY = {"type": "play", "user_id": "u1", "item_id": "m42", "event_time": 1767225600000, "value": 312.5}
_POSTED = "#/components/schemas/PostedRequest"
_CLOUD = {"specversion": "1.0", "id": "e-1", "source": "/player", "type": "play"}
_ASK = {"request_id": "r-1", "user_id": "u1", "n": 10, "context": {"surface": "home"}}


def openapi() -> dict[str, Any]:
    """The document."""
    types: tuple[type, ...] = (Event, Request, Slate, Receipt, Problem)
    refs, schemas = components(types, ref_template="#/components/schemas/{name}")
    of = dict(zip(types, refs, strict=True))
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Marquee",
            "version": _VERSION,
            "description": "What a worker takes and answers over HTTP: the same records as on its topics.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": {
            "/v1/events": {"post": _events(of)},
            "/v1/slates": {"post": _slates(of)},
            "/v1/users/{user_id}/slate": {"get": _latest(of)},
        },
        "components": {
            "schemas": {
                **schemas,
                "CloudEvent": _cloud_event(of[Event]),
                "PostedRequest": _posted(schemas["Request"]),
            },
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "Wanted where `http.token` is set."}
            },
        },
    }


def _events(of: Mapping[type, Any]) -> dict[str, Any]:
    cloud = {"$ref": "#/components/schemas/CloudEvent"}
    plain = {"oneOf": [of[Event], {"type": "array", "items": of[Event]}]}
    return {
        "operationId": "postEvents",
        "summary": "Tell what people did.",
        "description": "One event or a list. A CloudEvent's attributes come as `ce-` headers beside a plain event, or "
        "with the event as `data` inside; with `source` and `id` it counts once, as long as at most seven other events "
        "of its user came between. Without a `user_id` the attribute `partitionkey` names the user. The answer comes "
        "when all in-sync replicas have what was accepted.",
        "security": _TOKEN,
        "requestBody": {
            "required": True,
            "content": {
                JSON: {"schema": plain, "example": _PLAY},
                EVENT: {"schema": cloud, "example": {**_CLOUD, "data": _PLAY}},
                BATCH: {"schema": {"type": "array", "items": cloud}, "example": [{**_CLOUD, "data": _PLAY}]},
            },
        },
        "responses": {
            "202": _answer("All are on the topic.", of[Receipt]),
            "400": _answer(
                "Some are refused, each with the code of a dead letter; the others are there. Or the body broke off.",
                {"anyOf": [of[Receipt], of[Problem]]},
            ),
            **_problems(of, 401, 408, 413, 415, 500, 503),
        },
    }


def _slates(of: Mapping[type, Any]) -> dict[str, Any]:
    return {
        "operationId": "postSlates",
        "summary": "Ask for a slate now, with ads where `imp` asks for them.",
        "description": "The same `request_id` of the same user gets the same `slate_id`, and what was decided for its "
        "`imp` the first time; without one it is given one. Past its deadline it is answered with what is popular, and "
        "`degraded` says so.",
        "security": _TOKEN,
        "requestBody": {"required": True, "content": {JSON: {"schema": {"$ref": _POSTED}, "example": _ASK}}},
        "responses": {
            "200": _answer("The slate.", of[Slate]),
            **_problems(of, 400, 401, 408, 413, 415, 500, 503, 504),
        },
    }


def _latest(of: Mapping[type, Any]) -> dict[str, Any]:
    return {
        "operationId": "getSlate",
        "summary": "The latest slate of a user, without what may not be shown any more.",
        "security": _TOKEN,
        "parameters": [{"name": "user_id", "in": "path", "required": True, "schema": _USER_ID}],
        "responses": {
            "200": _answer("The slate.", of[Slate]),
            **_problems(of, 400, 401, 404, 500, 503),
        },
    }


_MEANS = {
    400: "It cannot be read; `code` and `field` say what is wrong.",
    401: "The token is missing or wrong.",
    404: "There is none, or it has expired.",
    408: "The body did not come whole in time. Nothing of it was taken.",
    413: "The body is too large, or holds too many events. Nothing of it was taken.",
    415: "The body is of a kind that is not taken.",
    500: "It failed; sending it again does not help.",
    503: "Redis or brokers do not answer, too many wait, or it starts. Send it again after `Retry-After` seconds.",
    504: "No answer within the deadline.",
}


def _problems(of: Mapping[type, Any], *statuses: int) -> dict[str, Any]:
    return {str(status): _answer(_MEANS[status], of[Problem]) for status in statuses}


def _answer(description: str, schema: Any) -> dict[str, Any]:
    return {"description": description, "content": {JSON: {"schema": schema}}}


def _posted(request: Mapping[str, Any]) -> dict[str, Any]:
    """A request as it may be posted: it need have no name of its own, and no key says whose it is."""
    members = request["properties"]
    name = {"anyOf": [members["request_id"], {"type": "null"}], "default": None}
    return {
        **request,
        "title": "PostedRequest",
        "properties": {**members, "request_id": name, "user_id": _USER_ID},
        "required": ["user_id"],
    }


def _cloud_event(event: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "title": "CloudEvent",
        "required": ["id", "source", "data"],
        "properties": {
            "specversion": {"type": "string"},
            "id": {"type": "string"},
            "source": {"type": "string"},
            "type": {"type": "string"},
            "partitionkey": {"type": "string"},
            "traceparent": {"type": "string"},
            "data": event,
        },
    }
