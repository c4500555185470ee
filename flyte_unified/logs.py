"""The server's own log: for people on a terminal, one JSON object a line for anything else.

Ours is written through structlog, with run, action and attempt bound as context. What libraries say through
``logging`` comes out the same way, from ``warning`` up: below that they talk about themselves.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

from flyte_unified.settings import Log


def configure(log: Log) -> None:
    """Send the logs of this process to standard error as ``log`` says. Call it once, before the first line."""
    level = logging.getLevelNamesMapping()[log.level.upper()]
    console = log.format == "console" or (log.format == "auto" and sys.stderr.isatty())
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            *(_for_people() if console else _for_machines()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=(
            structlog.PrintLoggerFactory(sys.stderr) if console else structlog.BytesLoggerFactory(sys.stderr.buffer)
        ),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[_Forward()], level=max(level, logging.WARNING), force=True)
    logging.getLogger("flyte_unified").setLevel(level)


def _for_people() -> list[Any]:
    return [
        structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback),
    ]


def _for_machines() -> list[Any]:
    import orjson

    return [
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(serializer=orjson.dumps),
    ]


class _Forward(logging.Handler):
    """Hands a library's record to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().log(record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info)
