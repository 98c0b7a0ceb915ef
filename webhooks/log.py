"""How Usher's processes log: one line for each thing that happened, on standard error.

The lines of uvicorn, arq and the standard library go through the same format. Tracebacks are
written without the values of variables, which could be secrets.
"""

import logging
import sys
from typing import Any, Final, Literal

Style = Literal["json", "console"]

_QUIET: Final = ("httpx", "httpcore")
"""Loggers that write a line for each call; our own lines say what the call was for."""


def configure(style: str | None) -> None:
    """Set up structlog and the standard library's logging; call it once, at the process's start.

    Args:
        style: `json` or `console`; None takes `console` on a terminal and `json` elsewhere.
    """
    import structlog  # noqa: PLC0415 - 130 ms, which `usher --help` should not pay

    console = (style or ("console" if sys.stderr.isatty() else "json")) == "console"
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    render = _console() if console else _json()
    structlog.configure(
        processors=[*shared, *render],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )
    _standard_library(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )


def _json() -> list[Any]:
    import structlog  # noqa: PLC0415 - as above

    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]


def _console() -> list[Any]:
    import structlog  # noqa: PLC0415 - as above

    return [
        structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    ]


def _standard_library(formatter: logging.Formatter) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        _take_over(logging.getLogger(name))
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def _take_over(logger: logging.Logger) -> None:
    """Send a logger that has handlers of its own through ours; a silenced one stays silent."""
    if logger.handlers:
        logger.handlers = []
        logger.propagate = True
