"""What hosts, addresses and files of the settings must look like, and how an address is written down.

Every function takes what was set and returns it as it is used, or raises a ValueError that says what is wrong. None
quotes what it was given: it may hold a password. `streams.configuration` shows it, and hides what must be hidden.

>>> bootstrap("kafka-1, [2001:db8::1]:9094")
'kafka-1:9092,[2001:db8::1]:9094'
>>> url_of("::1", 6066)
'http://[::1]:6066'
>>> is_loopback("127.0.0.53"), is_loopback("0.0.0.0")
(True, False)
"""

import re
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import SplitResult, parse_qsl, urlsplit

from pydantic import AfterValidator, Field

_KAFKA_PORT = 9092
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")
_TLS_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")


def text(value: str) -> str:
    """A value that is what was meant: env files of Docker and Kubernetes hand quotes and line ends over as they are."""
    if odd := next((character for character in value if not character.isprintable()), None):
        raise ValueError(f"holds {odd!a}, as a file with other line ends or a secret with a newline brings it")
    if value != value.strip():
        raise ValueError("begins or ends with a space")
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'`":
        raise ValueError("the quotation marks are part of the value: only a shell takes them away")
    return value


def host(value: str) -> str:
    """A name, an IPv4 or an IPv6 address; the latter without the brackets it may have."""
    if value.startswith("[") and value.endswith("]"):
        return str(_ipv6(value[1:-1]))
    if value.count(":") > 1:
        return str(_ipv6(value))
    if ":" in value:
        raise ValueError("names a port, which has a setting of its own")
    name = len(value) < 254 and _NAME.fullmatch(value)
    if not name or (value.replace(".", "").isdecimal() and not _is_ip(value)):
        raise ValueError("is no name and no address of a host")
    return value


def bootstrap(value: str) -> str:
    """Brokers, separated by commas; one without a port gets Kafka's."""
    return ",".join(_joined(*_placed(part.strip())) for part in value.split(","))


def redis_url(value: str) -> str:
    """One Redis server."""
    parts = _split(value)
    if "cluster" in parts.scheme or "sentinel" in parts.scheme:
        raise ValueError(
            "neither a cluster nor Sentinel is supported yet: name one server, or what follows the primary"
        )
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise ValueError("must begin with redis://, rediss:// or unix://")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if "@" in value or {"password", "username"} & set(options):
        raise ValueError("must not hold a user or a password: put them into redis.username and redis.password")
    known = ["db", *(_TLS_OPTIONS if parts.scheme == "rediss" else ())]
    if strange := sorted(set(options) - set(known)):
        raise ValueError(f"has an option {strange[0]!a}, known are {', '.join(known)}")
    for name in sorted(set(options) - {"db"}):
        try:
            readable(Path(text(options[name])))
        except ValueError as error:
            raise ValueError(f"{name} {error}") from None
    if parts.scheme == "unix" and (parts.netloc or not parts.path.strip("/")):
        raise ValueError("must name a socket with three slashes, as unix:///run/redis.sock")
    if parts.scheme != "unix":
        _placed(parts.netloc)
    database = options.get("db", "0" if parts.scheme == "unix" else parts.path.strip("/") or "0")
    if not re.fullmatch(r"[0-9]{1,9}", database) or parts.fragment:
        raise ValueError("must end in the number of a database, as /0")
    return value


def web_url(value: str) -> str:
    """An address that pages are fetched from."""
    parts = _split(value)
    if parts.scheme not in ("http", "https"):
        raise ValueError("must begin with http:// or https://")
    if "@" in value or parts.query or parts.fragment:
        raise ValueError("must be an address without user, password, ? or #")
    _placed(parts.netloc)
    return value


def readable(value: Path) -> Path:
    """A file that is there and may be read."""
    try:
        with value.open("rb") as file:
            file.read(1)
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot be read ({type(error).__name__})") from None
    return value


def folder(value: Path) -> Path:
    """A folder, there or to be made."""
    text(str(value))
    if value == Path() or value.parts[0].startswith("~"):
        raise ValueError("must name a folder; ~ is known to shells only")
    return value


def url_of(host: str, port: int, *, tls: bool = False) -> str:
    """The HTTP or HTTPS address of a host as it is written down: IPv6 in brackets."""
    return f"http{'s' if tls else ''}://{_joined(host.replace('%', '%25'), port)}"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host."""
    try:
        return ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _split(value: str) -> SplitResult:
    try:
        return urlsplit(value)
    except ValueError:
        raise ValueError("is no address") from None


def _placed(value: str) -> tuple[str, int]:
    """Host and port of one server."""
    if "://" in value:
        raise ValueError("must be host:port, without a scheme")
    bracketed = re.fullmatch(r"(\[[^\]]*\])(?::(.*))?", value)
    if bracketed:
        name, port = bracketed.groups()
    else:
        name, _, port = value.partition(":")
        port = port if ":" in value else None
    if not bracketed and value.count(":") > 1:
        raise ValueError("an IPv6 address is written in brackets, as [::1]:9092")
    if port is not None and not (re.fullmatch(r"[0-9]{1,5}", port) and 0 < int(port) < 65_536):
        raise ValueError("has a port that is no number from 1 to 65535")
    return host(name), _KAFKA_PORT if port is None else int(port)


def _joined(name: str, port: int) -> str:
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"


def _ipv6(value: str) -> IPv6Address:
    try:
        return IPv6Address(value)
    except ValueError:
        raise ValueError("is no IPv6 address") from None


def _is_ip(value: str) -> bool:
    try:
        ip_address(value)
    except ValueError:
        return False
    return True


def like(rule: str) -> Any:
    """What is said of a setting's values where one is refused."""
    return Field(json_schema_extra={"rule": rule})


Host = Annotated[str, AfterValidator(host), like("a host's name or address")]
File = Annotated[Path, AfterValidator(readable), like("a file that can be read")]
Port = Annotated[int, Field(ge=0, le=65535)]
