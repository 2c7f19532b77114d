"""Logs of a service: one JSON object a line, by the logging module.

The library only logs to "diskreplay.service"; the program says where that goes.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime, timezone
from typing import TextIO

LOGGER = logging.getLogger("diskreplay.service")
_FACTS = "facts"  # the attribute of a record that holds them


def log(event: str, level: int = logging.INFO, *, exc_info: bool = False, **facts: object) -> None:
    """Log an event and its facts; never a token, and no data of rows.

    exc_info:  whether the exception that is handled is logged, with its traceback
    """
    LOGGER.log(level, event, exc_info=exc_info, extra={_FACTS: facts})


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON: time, level, event, and the facts of the event."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        entry = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, _FACTS, {}),
        }
        if record.exc_info:
            entry["error"] = self.formatException(record.exc_info)
        # Escaped, no name of a stranger ends the line or commands the terminal.
        return json.dumps(entry, default=str, ensure_ascii=True)


def log_json_lines(stream: TextIO | None = None) -> None:
    """Write the logs of the service to a stream, the standard error by default."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
