"""Does a new schema of a record break those who write or read the one before?

A topic that we read evolves backward: what was written by the old schema is read by the new one. A topic that we
publish evolves in full: the old schema reads what the new one writes as well. Either way members are only ever added,
and never required. Each released version is compared, not the last one alone. What breaks needs a new topic, `.v2`.

>>> breaks({"properties": {"a": {"type": "integer"}}}, {"properties": {"a": {"type": "string"}}}, full=False)
['a: string does not take the integer of before']
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

Schema = Mapping[str, Any]

#: Keywords that say nothing of what is valid.
_SAYS_NOTHING = frozenset({"title", "description", "default", "examples", "$schema", "$id", "$defs"})
_AT_LEAST = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_AT_MOST = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_CHOICES = ("anyOf", "oneOf")
_EXACT = ("pattern", "not", "allOf", "if", "then", "else", "format", "multipleOf", "patternProperties", "prefixItems")
_INNER = ("items", "additionalProperties", "propertyNames")
_COMPARED = frozenset(
    {*_AT_LEAST, *_AT_MOST, *_CHOICES, *_EXACT, *_INNER, "type", "enum", "const", "properties", "required", "$ref"}
)


def breaks(old: Schema, new: Schema, *, full: bool) -> list[str]:
    """What of a new schema breaks the old one; empty where nothing does.

    Args:
        old: a released version, with its `$defs`.
        new: the schema as it is now.
        full: must the old one take what the new one writes as well?
    """
    backward = _Taking(new, old, "does not take", "of before").refused(new, old, "")
    found = [*_removed(_Taking(new, old, "", ""), new, old, ""), *backward]
    if full:
        found += _Taking(old, new, "of before does not take", "of now").refused(old, new, "")
    return list(dict.fromkeys(found))


def _removed(both: "_Taking", new: Schema, old: Schema, at: str) -> Iterator[str]:
    """Members that are no more, however deep."""
    new, old = both.opened(new, both.taker), both.opened(old, both.given)
    for name, was in old.get("properties", {}).items():
        if name not in new.get("properties", {}):
            yield f"{_in(at, name)}: removed"
        else:
            yield from _removed(both, new["properties"][name], was, _in(at, name))
    if isinstance(old.get("items"), Mapping) and isinstance(new.get("items"), Mapping):
        yield from _removed(both, new["items"], old["items"], f"{at}[]")
    was_R, is_R = ([b for b in s.get("anyOf", ()) if _is_record(b)] for s in (old, new))
    for was, now in zip(was_R, is_R, strict=False):
        yield from _removed(both, now, was, at)


def _is_record(schema: Schema) -> bool:
    return "$ref" in schema or schema.get("type") in ("object", "array")


class _Taking(NamedTuple):
    """Two documents, and how it is said that one does not take what the other gives."""

    taker: Schema
    given: Schema
    verb: str
    whose: str

    def opened(self, schema: Schema, document: Schema) -> Schema:
        """What a reference means."""
        ref = schema.get("$ref")
        return self.opened(document["$defs"][ref.rpartition("/")[2]], document) if ref else schema

    def refused(self, taker: Schema, given: Schema, at: str, *, condition: bool = False) -> list[str]:
        """What the taker refuses of what the given schema allows, as sentences.

        In a condition (an alternative without a type of its own) what is asked of a member narrows, if the record had
        that member; one that is new was never written.
        """
        taker, given = self.opened(taker, self.taker), self.opened(given, self.given)
        unknown = (taker.keys() | given.keys()) - _SAYS_NOTHING - _COMPARED
        if unknown:
            return [f"{at or 'record'}: {', '.join(sorted(unknown))} cannot be compared"]
        return [
            *self._choices(taker, given, at),
            *self._values(taker, given, at),
            *self._bounds(taker, given, at),
            *self._members(taker, given, at, condition),
        ]

    def _say(self, at: str, what: object, given: object) -> str:
        return f"{at or 'record'}: {what} {self.verb} the {given} {self.whose}"

    def _choices(self, taker: Schema, given: Schema, at: str) -> Iterator[str]:
        for key in _CHOICES:
            if key in taker:
                for one in given.get(key) or [_without(given, "properties", "required", *_CHOICES)]:
                    yield from self._choice(taker[key], one, at)
            elif key in given and "type" in taker and not _is_record(taker):
                for one in given[key]:
                    yield from self.refused(taker, one, at)

    def _choice(self, alternatives: Sequence[Schema], one: Schema, at: str) -> list[str]:
        """Why none of the taker's alternatives takes one; of the alternative that is the most like it."""
        reasons = [self.refused(other, one, at, condition=not _is_typed(other)) for other in alternatives]
        if not all(reasons):
            return []
        like = [why for other, why in zip(alternatives, reasons, strict=True) if _is_like(other, one)]
        return like[0] if like else [self._say(at, "what is left", _name_of(one))]

    def _values(self, taker: Schema, given: Schema, at: str) -> Iterator[str]:
        allowed, values = _listed(taker), _listed(given)
        if allowed is not None and (values is None or (lost := [v for v in values if v not in allowed])):
            yield self._say(at, f"one of {allowed}", "any value" if values is None else lost)
        kinds = _types(given) if values is None else {_type_of(value) for value in values}
        if (types := _types(taker)) and not any(key in given for key in _CHOICES):
            lost = [kind for kind in kinds or {"any value"} if not types & _wider(kind)]
            if lost:
                yield self._say(at, " or ".join(sorted(types)), " or ".join(sorted(lost)))

    def _bounds(self, taker: Schema, given: Schema, at: str) -> Iterator[str]:
        if _listed(given) is not None:
            return
        for keys, sign in ((_AT_LEAST, 1), (_AT_MOST, -1)):
            for key in keys:
                limit, was = taker.get(key), given.get(key)
                if limit is not None and (was is None or sign * was < sign * limit):
                    yield self._say(at, f"{key} {limit}", f"{key} {was}")
        for key in _EXACT:
            if key in taker and taker[key] != given.get(key):
                yield self._say(at, f"{key} {taker[key]}", f"{key} {given.get(key)}")

    def _members(self, taker: Schema, given: Schema, at: str, condition: bool) -> Iterator[str]:
        for name in sorted(set(taker.get("required", ())) - set(given.get("required", ()))):
            yield self._say(at, f"a record that must have {name}", f"one without {name}")
        ours, theirs = taker.get("properties", {}), given.get("properties", {})
        for name, member in ours.items():
            if name in theirs or (condition and name in self.given.get("properties", {})):
                yield from self.refused(member, theirs.get(name, {}), _in(at, name))
        for key in _INNER:
            if isinstance(taker.get(key), Mapping) and taker[key]:
                yield from self.refused(taker[key], given.get(key) or {}, f"{at}[]")


def _in(at: str, name: str) -> str:
    return f"{at}.{name}" if at else name


def _without(schema: Schema, *keys: str) -> Schema:
    return {key: value for key, value in schema.items() if key not in keys}


def _listed(schema: Schema) -> list[Any] | None:
    return [schema["const"]] if "const" in schema else schema.get("enum")


def _types(schema: Schema) -> set[str]:
    kinds = schema.get("type", ())
    return {kinds} if isinstance(kinds, str) else set(kinds)


def _type_of(value: Any) -> str:
    """The type of a value, as a schema names it."""
    return next(name for name, kind in _KINDS if isinstance(value, kind))


_KINDS = (
    *(("null", type(None)), ("boolean", bool), ("integer", int), ("number", float), ("string", str)),
    *(("array", list), ("object", Mapping)),
)


def _is_typed(schema: Schema) -> bool:
    """Is it of a thing by itself, rather than a condition on one?"""
    return not schema.keys().isdisjoint({"type", "$ref", "enum", "const"})


def _is_like(one: Schema, other: Schema) -> bool:
    """Are two alternatives the same one, before and after?"""
    return any(one.get(key) is not None and one.get(key) == other.get(key) for key in ("title", "$ref", "type"))


def _name_of(schema: Schema) -> str:
    return str(schema.get("title") or schema.get("$ref", "").rpartition("/")[2] or schema.get("type", "alternative"))


def _wider(kind: str) -> set[str]:
    return {kind, "number"} if kind == "integer" else {kind}
