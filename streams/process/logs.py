"""How a process logs: plain lines, coloured ones on a terminal, or one JSON object per line; to standard error."""

import json
import logging
import sys
import time

from streams.settings import Settings

#: Libraries whose information is noise; their warnings are shown.
_NOISY = ("faust", "mode", "aiokafka", "numba", "matplotlib", "faiss")


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
    logging.basicConfig(level=level, handlers=[_handler(settings)])
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
