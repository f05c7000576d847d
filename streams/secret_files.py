"""A secret among the settings: itself, or `file:` and the name of a file that holds it."""

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, SecretStr


def _from_file(value: object) -> object:
    if isinstance(value, str) and value.startswith("file:"):
        path = value.removeprefix("file:")
        try:
            value = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, ValueError) as error:
            raise ValueError(f"secret file {path!a} cannot be read ({type(error).__name__})") from None
        if not value.isprintable() or not value:
            raise ValueError(f"secret file {path!a} must hold one line of text")
    return value


Secret = Annotated[SecretStr, BeforeValidator(_from_file)]
