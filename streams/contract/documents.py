"""The files of the contract: an AsyncAPI document, a schema per topic, and the schemas of each released version.

`asyncapi.json` and `schemas/` are written from the code, with records of `examples.json`, which a real run brought.
`versions/` holds what was released and is never edited: what is now must not break any of it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from streams.contract.asyncapi import VERSION, Example, asyncapi
from streams.contract.compatibility import breaks
from streams.contract.schemas import RECORD_OF, WRITTEN_BY_OTHERS, document
from streams.settings import TOPIC_NAMES, Settings, TopicName

#: Where the files are that come with the code.
HERE = Path(__file__).parents[2] / "deploy" / "contract"
EXAMPLES = "examples.json"
Examples = Mapping[TopicName, Sequence[Example]]

_read_examples = msgspec.json.Decoder(dict[TopicName, list[Example]]).decode


def examples_in(folder: Path) -> Examples:
    """The records that a run left there; none where it left none."""
    file = folder / EXAMPLES
    return _read_examples(file.read_bytes()) if file.exists() else {}


def write_examples(folder: Path, examples: Examples) -> None:
    """Keep records of a run, for the document to show."""
    kept = {
        name: [msgspec.to_builtins(example) for example in examples[name]] for name in TOPIC_NAMES if examples.get(name)
    }
    _write(folder / EXAMPLES, _text(kept))


def texts(settings: Settings, examples: Examples) -> dict[str, str]:
    """What is written, by file: the document for these settings, and the schemas, which no setting changes."""
    schemas = {f"schemas/{_name(topic)}.v1.json": _text(document(topic)) for topic in RECORD_OF}
    return {"asyncapi.json": _text(asyncapi(settings, examples)), **schemas}


def write(folder: Path, settings: Settings) -> list[str]:
    """Write the files into a folder, with the examples that it has, else those that came with the code."""
    made = texts(settings, examples_in(folder) or examples_in(HERE))
    for name, text in made.items():
        _write(folder / name, text)
    return sorted(made)


def differing(folder: Path, settings: Settings) -> list[str]:
    """Files that are not what the code says, and schemas of topics that are no more."""
    made = texts(settings, examples_in(folder) or examples_in(HERE))
    old = {f"schemas/{file.name}" for file in (folder / "schemas").glob("*.json")} - made.keys()
    return sorted(old | {name for name, text in made.items() if _read(folder / name) != text})


def broken(folder: Path) -> list[str]:
    """What of the schemas as they are now breaks a released version, as sentences."""
    return [
        f"{_name(topic)} {version}: {why}"
        for version, topic, old in _released(folder)
        for why in breaks(old, document(topic), full=topic not in WRITTEN_BY_OTHERS or topic == "privacy")
    ]


def freeze(folder: Path) -> Path | None:
    """Keep the schemas as they are now as those of this version; None where they are kept already.

    Raises:
        FileExistsError: other ones were released as this version. Give it another number.
    """
    into = folder / "versions" / VERSION
    made = {into / f"{_name(topic)}.v1.json": _text(document(topic)) for topic in RECORD_OF}
    if into.exists():
        if any(_read(file) != text for file, text in made.items()):
            raise FileExistsError(f"{into} holds other schemas: raise VERSION in streams/contract/asyncapi.py")
        return None
    for file, text in made.items():
        _write(file, text)
    return into


def _released(folder: Path) -> Iterator[tuple[str, TopicName, Mapping[str, Any]]]:
    for version in sorted((folder / "versions").glob("*")):
        for topic in RECORD_OF:
            if text := _read(version / f"{_name(topic)}.v1.json"):
                yield version.name, topic, json.loads(text)


def _name(topic: str) -> str:
    return topic.replace("_", "-")


def _text(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _read(file: Path) -> str:
    return file.read_text(encoding="utf-8") if file.exists() else ""


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
