"""Just enough YAML to write rules that people read: mappings, lists, texts in quotes, long texts folded.

>>> print(to_yaml({"groups": [{"name": "a", "rules": []}]}), end="")
groups:
- name: "a"
  rules: []
"""

import json
from collections.abc import Iterator, Mapping, Sequence

Value = Mapping[str, "Value"] | Sequence["Value"] | str | int | float
_FOLDED = 100


def to_yaml(value: Value) -> str:
    """The document, ending in a newline."""
    return "\n".join(_lines(value)) + "\n"


def _lines(value: Value) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _under(f"{key}:", inner)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for inner in value:
            first, *others = _lines(inner)
            yield f"- {first}"
            yield from (f"  {line}" for line in others)
    else:
        yield _scalar(value)


def _under(head: str, value: Value) -> Iterator[str]:
    if isinstance(value, str) and len(value) > _FOLDED and "  " not in value and value == value.strip():
        yield f"{head} >-"
        yield from (f"  {line}" for line in _words(value))
    elif isinstance(value, Mapping) and value:
        yield head
        yield from (f"  {line}" for line in _lines(value))
    elif isinstance(value, Sequence) and not isinstance(value, str) and value:
        yield head
        yield from _lines(value)
    else:
        yield f"{head} {_scalar(value)}"


def _words(text: str) -> Iterator[str]:
    line = ""
    for word in text.split(" "):
        if line and len(line) + len(word) >= _FOLDED:
            yield line
            line = word
        else:
            line = f"{line} {word}" if line else word
    yield line


def _scalar(value: Value) -> str:
    if isinstance(value, str) and '"' in value and "'" not in value:
        return f"'{value}'"
    return json.dumps(value, ensure_ascii=False)
