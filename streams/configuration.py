"""Where settings come from, what is said when one is wrong, and how they are shown.

>>> load_settings(environ={"MARQUEE_SLATES__SIZE": "10"}).slates.size
10
>>> load_settings(environ={"MARQUEE_SLATES__SISE": "10"})
Traceback (most recent call last):
    ...
streams.configuration.SettingsError: MARQUEE_SLATES__SISE: unknown setting slates.sise; did you mean slates.size?
"""

import difflib
import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from pydantic import SecretStr, ValidationError
from pydantic_settings import EnvSettingsSource

from streams.settings import Settings

PREFIX = "MARQUEE_"
CONFIG = "MARQUEE_CONFIG"
#: Variables that name places on this machine and are no settings.
PLACES = (CONFIG, "MARQUEE_CACHE")
#: Keys, and values of keys, that an earlier release had, and what to do instead.
REMOVED = {
    "batching.shards": "run several worker processes to use more cores",
    "index.ef_search": "index.nprobe is the breadth of an approximate search",
    "index.kind = hnsw": "ivf finds more of the nearest items; auto takes it where exact search is slow",
}
HIDDEN = "**********"
_SECRET_WORDS = ("password", "secret", "hmac", "token", "url")


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
    names = [name for name in environ if name.upper().startswith(PREFIX) and name.upper() not in PLACES]
    _refuse_strangers((_key(name), environ[name], name) for name in names)
    from_file = _read_toml(file) if file else {}
    _refuse_strangers((key, value, f"{file}: {key}") for key, value in _leaves(from_file))
    from_env = _Environment(environ)()
    try:
        return Settings(**_joined(from_file, from_env))
    except ValidationError as error:
        raise SettingsError("\n".join(_sentences(error))) from None


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
    lines = ["# Settings", "", "Environment `MARQUEE_<GROUP>__<NAME>` over a TOML file over these defaults.", ""]
    lines += ["| key | default | allowed | what |", "|---|---|---|---|"]
    for key, leaf in _known().items():
        default = leaf.get("default")
        said = "" if default is None else f"`{default}`"
        lines.append(f"| `{key}` | {said} | {_allowed(leaf)} | {leaf.get('description', '')} |")
    return "\n".join(lines) + "\n"


class _Environment(EnvSettingsSource):
    """The `MARQUEE_…` variables of a given environment, nested by `__`."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        super().__init__(Settings, env_prefix=PREFIX, env_nested_delimiter="__", case_sensitive=False)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {name.lower(): value for name, value in self._environ.items() if value != ""}

    def __call__(self) -> dict[str, Any]:
        try:
            return super().__call__()
        except ValueError as error:
            raise SettingsError(f"{error}: lists are written as JSON") from None


def _key(variable: str) -> str:
    return variable[len(PREFIX) :].lower().replace("__", ".")


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path}: cannot be read as TOML: {error}") from None


def _joined(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(under)
    for key, value in over.items():
        old = out.get(key)
        out[key] = _joined(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return out


def _leaves(tree: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, object]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def _known() -> dict[str, dict[str, Any]]:
    """Every key with its JSON schema."""
    whole = schema()
    out: dict[str, dict[str, Any]] = {}

    def walk(node: Mapping[str, Any], before: str) -> None:
        for name, leaf in node["properties"].items():
            inner = whole["$defs"].get(str(leaf.get("$ref", "")).rpartition("/")[2])
            if inner is None:
                out[before + name] = leaf
            else:
                walk(inner, f"{before}{name}.")

    walk(whole, "")
    return out


def _refuse_strangers(found: Iterable[tuple[str, object, str]]) -> None:
    """Refuse what is no setting, or none any more: keys with their values and the place where each was found."""
    known = list(_known())
    for key, value, place in found:
        for gone in (key, f"{key} = {value}"):
            if gone in REMOVED:
                raise SettingsError(f"{place}: {gone} was removed: {REMOVED[gone]}")
        if key not in known:
            near = difflib.get_close_matches(key, known, 1, 0.4)
            groups = sorted({name.partition(".")[0] for name in known})
            hint = f"; did you mean {near[0]}?" if near else f"; known groups: {', '.join(groups)}"
            raise SettingsError(f"{place}: unknown setting {key}{hint}")


def _sentences(error: ValidationError) -> Iterator[str]:
    known = _known()
    for detail in error.errors(include_url=False):
        key = ".".join(str(part) for part in detail["loc"] if not isinstance(part, int))
        leaf = known.get(key)
        said = detail["msg"].removeprefix("Value error, ")
        if leaf is None:
            yield f"{key or 'settings'}: {said}"
        else:
            yield f"{key} = {_printable(key, detail['input'])}: {said}; allowed: {_allowed(leaf)}"


def _printable(key: str, value: object) -> str:
    if key.endswith("url") and isinstance(value, str):
        parts = urlsplit(value)
        return repr(urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])))
    if isinstance(value, SecretStr) or any(word in key for word in _SECRET_WORDS):
        return HIDDEN
    return repr(value)[:200]


def _allowed(leaf: Mapping[str, Any]) -> str:
    """The values a setting may take, in words, from its JSON schema."""
    if "anyOf" in leaf:
        return " or ".join(_allowed(choice) for choice in leaf["anyOf"])
    if "enum" in leaf:
        return ", ".join(str(choice) for choice in leaf["enum"])
    if leaf.get("type") in ("integer", "number"):
        return _range(leaf)
    words = {"null": "unset", "boolean": "true or false", "array": "a list", "string": "text"}
    pattern = f" like {leaf['pattern']}" if "pattern" in leaf else ""
    return words[leaf["type"]] + pattern


def _range(leaf: Mapping[str, Any]) -> str:
    low = leaf.get("minimum", f"above {leaf['exclusiveMinimum']}" if "exclusiveMinimum" in leaf else "any")
    high = leaf.get("maximum", f"below {leaf['exclusiveMaximum']}" if "exclusiveMaximum" in leaf else "any")
    return f"{leaf['rule']} from {low} to {high}" if "rule" in leaf else f"{low} to {high}"
