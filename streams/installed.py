"""Which packages of the extras are installed; none is imported to find out."""

from collections.abc import Iterable
from importlib.util import find_spec

SPANS = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
"""What the extra `otel` brings."""


def lacking(modules: Iterable[str]) -> list[str]:
    """Those modules that are not there.

    >>> lacking(["json", "nobody.has.this"])
    ['nobody.has.this']
    """
    return [module for module in modules if not _there(module)]


def _there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # nor is the package that it is in
        return False
