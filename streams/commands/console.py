"""What all commands share: the two options they have, where they speak, how they begin and end.

Progress and logs go to standard error; standard output holds results, and with `--json` ends with one object.
"""

import errno
import json
import logging
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from streams.settings import Settings

err = Console(stderr=True, highlight=False, soft_wrap=True)
out = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
"""A table that goes into a file or a pipe is as wide as it needs to be."""

Config = Annotated[Path | None, typer.Option("--config", help="TOML file of settings; environment variables win.")]
Json = Annotated[bool, typer.Option("--json", help="End standard output with one machine-readable object.")]


class Failed(Exception):
    """A command could not do what it was asked; its message is for the person. Exit code 1."""


def load(config: Path | None) -> "Settings":
    """The settings in force, with logging set up as they say.

    Raises:
        SettingsError: one of them is unknown or impossible. Exit code 2.
    """
    from streams import configuration
    from streams.process import logs

    settings = configuration.load_settings(config)
    logs.configure(settings)
    if links := configuration.service_links(os.environ):
        said = "passed over, they are Kubernetes' service links (enableServiceLinks: false keeps them away)"
        logging.getLogger(__name__).warning("%s, %d variables in all: %s", links[0], len(links), said)
    return settings


def finish(result: dict[str, Any], as_json: bool) -> None:
    """End standard output with the result, if somebody asked for it."""
    if as_json:
        print_json(result, indent=None)


def print_json(value: object, *, indent: int | None = 2) -> None:
    """Write JSON to standard output as it is, without colours or wrapping."""
    sys.stdout.write(json.dumps(value, indent=indent, default=str, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def complain(kind: str, error: BaseException | str) -> None:
    """One line on standard error about what went wrong; the traceback only at log level debug."""
    err.print(f"[red]{kind}:[/]", end=" ")
    err.print(str(error) or type(error).__name__, markup=False, soft_wrap=True)
    logging.getLogger(__name__).debug("%s", kind, exc_info=isinstance(error, BaseException))


def refuse_taken(host: str, port: int, advice: str, *, setting: str = "") -> None:
    """Make sure, before anything starts, that a port can be listened on.

    Raises:
        Failed: it cannot; the message names the setting of the host where it is the host's fault, and ends with the
            advice where it is the port's. Exit code 1.
    """
    try:
        places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, place in places:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(place)
    except (OSError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise Failed(f"{setting} = {host!r}: cannot be listened on here ({error.strerror or error})") from None
        raise Failed(f"port {port} of {host} cannot be had ({error}); {advice}") from None
