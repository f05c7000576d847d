"""What all commands share: the two options they have, where they speak, how they begin and end.

Progress and logs go to standard error; standard output holds results, and with `--json` ends with one object.
"""

import json
import logging
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from streams.settings import Settings

err = Console(stderr=True, highlight=False, soft_wrap=True)
out = Console(highlight=False)

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


def refuse_taken(host: str, port: int, advice: str) -> None:
    """Make sure, before anything starts, that a port can be listened on.

    Raises:
        Failed: it cannot; the message ends with the advice. Exit code 1.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            raise Failed(f"port {port} of {host} cannot be had ({error}); {advice}") from None
