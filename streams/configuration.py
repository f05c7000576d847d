"""Where settings come from, what is said when one is wrong, and how they are shown.

>>> load_settings(environ={"MARQUEE_SLATES__SIZE": "10"}).slates.size
10
>>> load_settings(environ={"MARQUEE_SLATES__SISE": "10"})
Traceback (most recent call last):
    ...
streams.configuration.SettingsError: MARQUEE_SLATES__SISE: unknown setting slates.sise; did you mean slates.size?
"""

import difflib
import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import SecretStr, ValidationError

from streams import addresses
from streams.settings import Settings

PREFIX = "MARQUEE_"
CONFIG = "MARQUEE_CONFIG"
#: Variables that name places on this machine and are no settings.
PLACES = (CONFIG, "MARQUEE_CACHE")
#: Keys, and values of keys, that an earlier release had, and what to do instead.
REMOVED = {
    **{
        f"ads.{name}": f"each surface that brings ads says its own: ads.surfaces.NAME.{name}"
        for name in ("ad_load_max", "first_slot", "min_gap", "revenue_weight")
    },
    "batching.shards": "run several worker processes to use more cores",
    "index.ef_search": "index.nprobe is the breadth of an approximate search",
    "index.kind = hnsw": "ivf finds more of the nearest items; auto takes it where exact search is slow",
}
#: What else is said where a value is refused: for whoever cannot choose it.
HINTS = {
    "topics.partitions": "topics of another count can be grown to one of these, or others be named (topics.events ...)"
}
HIDDEN = "**********"
_SECRET_WORDS = ("password", "secret", "hmac", "token")
#: What Kubernetes sets in every pod for every service, by the ends of names and by values: a service whose name begins
#: with ours has our prefix.
_SERVICE_LINKS = (
    ("_SERVICE_HOST|_PORT_[0-9]+_(TCP|UDP|SCTP)_ADDR", r"[0-9a-fA-F.:]+"),
    ("_SERVICE_PORT(_[A-Z0-9]+)*|_PORT_[0-9]+_(TCP|UDP|SCTP)_PORT", r"[0-9]+"),
    ("_PORT(_[0-9]+_(TCP|UDP|SCTP))?", r"(tcp|udp|sctp)://[0-9a-fA-F.:\[\]]+"),
    ("_PORT_[0-9]+_(TCP|UDP|SCTP)_PROTO", "tcp|udp|sctp"),
)


class SettingsError(Exception):
    """A setting is unknown or impossible, or one that is needed is missing. The start ends with exit code 2."""

    exit_code = 2


def load_settings(config: Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Settings from the environment, over a TOML file, over the defaults.

    Args:
        config: The TOML file; without it the one that `MARQUEE_CONFIG` names, if any.
        environ: Read instead of the process's environment.

    Raises:
        SettingsError: An unknown or impossible setting, or an unreadable file. The process has not started.
    """
    environ = os.environ if environ is None else environ
    file = config or (Path(environ[CONFIG]) if environ.get(CONFIG) else None)
    found = _Found()
    for key, value in _leaves(_read_toml(file) if file else {}):
        found.add(key, value, f"{_plain(str(file))}: {_plain(key)}")
    passed_over = set(service_links(environ))
    for name, value in environ.items():
        ours = name.upper().startswith(PREFIX) and name.upper() not in PLACES and name not in passed_over
        if ours and not found.unset_by(key := name[len(PREFIX) :].lower().replace("__", "."), value):
            found.add(key, value, _plain(name), from_environment=True)
    try:
        settings = Settings(**found.tree)
    except ValidationError as error:
        found.wrong += _sentences(error)
    if found.wrong:
        raise SettingsError("\n".join(found.wrong))
    return settings


def service_links(environ: Mapping[str, str]) -> list[str]:
    """The variables that Kubernetes injects for services whose names begin with ours; they are no settings.

    >>> service_links({"MARQUEE_PORT": "tcp://10.0.0.7:6066", "MARQUEE_HTTP__PORT": "6066"})
    ['MARQUEE_PORT']
    """
    return [
        name
        for name, value in environ.items()
        if name.startswith(PREFIX) and "__" not in name
        for end, values in _SERVICE_LINKS
        if re.fullmatch(rf"MARQUEE(_[A-Z0-9]+)*?({end})", name) and re.fullmatch(values, value)
    ]


def show(settings: Settings) -> dict[str, Any]:
    """All settings as plain values with every secret hidden."""
    shown: dict[str, Any] = settings.model_dump(mode="json")
    return shown


def schema() -> dict[str, Any]:
    """The JSON schema of the settings, for editors and for checking a file before it is deployed."""
    return Settings.model_json_schema()


def require_consent_default(settings: Settings) -> str:
    """What silence about consent means here: `grant` or `deny`.

    Raises:
        SettingsError: It was not decided. Nothing is consumed before it is.
    """
    if settings.consent.default is None:
        raise SettingsError(
            "consent.default is not set; allowed: grant, deny. Decide what an event without a consent object allows"
            f" ({PREFIX}CONSENT__DEFAULT=deny is the safe answer)"
        )
    return settings.consent.default


def describe() -> str:
    """All settings as a page of Markdown: key, default, what is allowed, what it does."""
    lines = ["# Settings", "", "Environment `MARQUEE_<GROUP>__<NAME>` over a TOML file over these defaults. An empty"]
    lines += ["variable leaves unset what has no default, and is refused where there is one.", ""]
    lines += ["| key | default | allowed | what |", "|---|---|---|---|"]
    for key, leaf in _known().items():
        default = leaf.get("default")
        said = "" if default is None else f"`{default}`"
        lines.append(f"| `{key}` | {said} | {_allowed(leaf)} | {leaf.get('description', '')} |")
    return "\n".join(lines) + "\n"


class _Found:
    """What was set, as a tree for `Settings`, and what is wrong with it; a later value of a key replaces an earlier."""

    def __init__(self) -> None:
        self.tree: dict[str, Any] = {}
        self.wrong: list[str] = []
        self._known = _known()

    def unset_by(self, key: str, value: str) -> bool:
        """Is a variable empty whose setting may be unset? What has a default is not set to it by mistake."""
        return value == "" and key in self._known and self._known[key].get("default") is None

    def add(self, key: str, value: object, place: str, *, from_environment: bool = False) -> None:
        """Take a value, found at a place, if it can be what was meant."""
        leaf = self._known.get(_general(key))
        said = _stranger(key, value, self._known)
        if said is None and leaf is not None:
            try:
                value = _meant(value, leaf if from_environment else {})
            except ValueError as error:
                said = f"{key} = {_printable(key, value)}: {error}; allowed: {_allowed(leaf)}"
        if said is not None:
            self.wrong.append(f"{place}: {said}")
            return
        node = self.tree
        *groups, name = key.split(".")
        for group in groups:
            node = node.setdefault(group, {})
        node[name] = value


def _meant(value: object, leaf: Mapping[str, Any]) -> object:
    """A value without what only looks like a part of it; a list of the environment is read as JSON.

    Raises:
        ValueError: why it cannot be meant.
    """
    if isinstance(value, list):
        return [_meant(one, {}) for one in value]
    if not isinstance(value, str):
        return value
    value = addresses.text(value)
    if leaf.get("type") != "array":
        return value
    try:
        return _meant(json.loads(value), {})
    except (ValueError, RecursionError):
        raise ValueError('lists are written as JSON, as ["a", "b"]') from None


def _plain(text: str) -> str:
    """A name as it may stand in a line."""
    return text if text.isprintable() else ascii(text)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise SettingsError(f"{_plain(str(path))}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{_plain(str(path))}: cannot be read as TOML: {_plain(str(error))}") from None


def _leaves(tree: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, object]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


@cache
def _known() -> dict[str, dict[str, Any]]:
    """Every key with its JSON schema."""
    whole = schema()
    out: dict[str, dict[str, Any]] = {}

    def walk(node: Mapping[str, Any], before: str) -> None:
        for name, leaf in node["properties"].items():
            each: Mapping[str, Any] = next(iter(leaf.get("patternProperties", {}).values()), {})
            inner = whole["$defs"].get(str(each.get("$ref") or leaf.get("$ref", "")).rpartition("/")[2])
            if inner is None:
                out[before + name] = leaf
            else:
                walk(inner, f"{before}{name}.{'NAME.' if each else ''}")

    walk(whole, "")
    return out


def _general(key: str) -> str:
    """A key with `NAME` for what a deployment calls something itself.

    >>> _general("policies.news.size")
    'policies.NAME.size'
    """
    return re.sub(r"^(policies|ads\.surfaces)\.[^.]+", r"\1.NAME", key)


def _stranger(key: str, value: object, known: Mapping[str, object]) -> str | None:
    """Why a key with this value is no setting, or none any more."""
    for gone in (key, f"{key} = {value}"):
        if gone in REMOVED:
            return f"{gone} was removed: {REMOVED[gone]}"
    if _general(key) in known:
        return None
    near = [name for name in known if name.startswith(f"{key}.NAME.")] or difflib.get_close_matches(key, known, 1)
    groups = sorted({name.partition(".")[0] for name in known})
    hint = f"did you mean {near[0]}?" if near else f"known groups: {', '.join(groups)}"
    return f"unknown setting {_plain(key)}; {hint}"


def _sentences(error: ValidationError) -> Iterator[str]:
    known = _known()
    for detail in error.errors(include_url=False):
        key = ".".join(str(part) for part in detail["loc"] if not isinstance(part, int))
        leaf = known.get(_general(key))
        said = detail["msg"].removeprefix("Value error, ")
        if leaf is None:
            yield f"{key or 'settings'}: {said}"
        elif detail["type"] == "missing":
            yield f"{key} is not set; allowed: {_allowed(leaf)}"
        else:
            hint = f"; {HINTS[key]}" if key in HINTS else ""
            yield f"{key} = {_printable(key, detail['input'])}: {said}; allowed: {_allowed(leaf)}{hint}"


def _printable(key: str, value: object) -> str:
    """A value as it was read, without what may be a password: secrets, and in others what is before @ or after ?."""
    if isinstance(value, SecretStr) or any(word in key for word in _SECRET_WORDS):
        return HIDDEN
    if isinstance(value, str) and ("@" in value or "?" in value):
        scheme, found, _ = value.partition("://")
        tail = "" if "?" in value or "#" in value else value.rpartition("@")[2]
        value = (scheme + found if found and "@" not in scheme else "") + HIDDEN + tail
    return repr(value)[:200]


def _allowed(leaf: Mapping[str, Any]) -> str:
    """The values a setting may take, in words, from its JSON schema."""
    if "anyOf" in leaf:
        return " or ".join(_allowed(choice) for choice in leaf["anyOf"])
    if "enum" in leaf:
        return ", ".join(str(choice) for choice in leaf["enum"])
    if leaf.get("type") in ("integer", "number"):
        return _range(leaf)
    if "rule" in leaf:
        return str(leaf["rule"])
    words = {"null": "unset", "boolean": "true or false", "array": "a list as JSON", "string": "text"}
    pattern = f" like {leaf['pattern']}" if "pattern" in leaf else ""
    return words[leaf["type"]] + pattern


def _range(leaf: Mapping[str, Any]) -> str:
    low = leaf.get("minimum", f"above {leaf['exclusiveMinimum']}" if "exclusiveMinimum" in leaf else "any")
    high = leaf.get("maximum", f"below {leaf['exclusiveMaximum']}" if "exclusiveMaximum" in leaf else "any")
    return f"{leaf['rule']} from {low} to {high}" if "rule" in leaf else f"{low} to {high}"
