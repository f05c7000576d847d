"""How a process logs: plain lines, coloured ones on a terminal, or one JSON object per line; to standard error.

What a library says again and again, as aiokafka does forty times a second while brokers are away, is said every ten
seconds, with how often it was said.
"""

import json
import logging
import sys
import time
from collections.abc import Callable

from streams.settings import Settings

#: Libraries whose information is noise; their warnings are shown.
_NOISY = ("faust", "mode", "aiokafka", "numba", "matplotlib", "faiss")


class Repeats(logging.Filter):
    """Holds back what a noisy library said less than `every_s` ago, and counts it."""

    def __init__(self, every_s: float = 10.0, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self.every_s, self.clock = every_s, clock
        self._said: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a line is written; the first after some that were not says how many these were."""
        if record.name.partition(".")[0] not in _NOISY:
            return True
        if len(self._said) > 1_000:
            self._said.clear()
        said, now_s = (record.name, record.getMessage()), self.clock()
        due_s, held = self._said.get(said, (now_s, 0))
        if now_s < due_s:
            self._said[said] = due_s, held + 1
            return False
        self._said[said] = now_s + self.every_s, 0
        if held:
            record.msg, record.args = f"{said[1]} (said {held} times more meanwhile)", ()
        return True


class JsonLines(logging.Formatter):
    """One record as one JSON object: time (UTC), level, logger, message, and the traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure(settings: Settings) -> None:
    """Log as the settings say, for the rest of this process's life; where something logs already, only the level."""
    level = logging.getLevelNamesMapping()[settings.log.level.upper()]
    handler = _handler(settings)
    handler.addFilter(Repeats())
    logging.basicConfig(level=level, handlers=[handler])
    for name in _NOISY:
        logging.getLogger(name).setLevel(max(logging.WARNING, level))


def _handler(settings: Settings) -> logging.Handler:
    handler: logging.Handler = logging.StreamHandler()
    if settings.log.format == "json":
        handler.setFormatter(JsonLines())
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.logging import RichHandler

        handler = RichHandler(console=Console(stderr=True), show_path=False)
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    return handler
