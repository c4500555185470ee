"""The server's log: one form for people, one for machines."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import orjson
import pytest

_PROGRAM = """
import logging, sys, structlog
from flyte_unified import logs
from flyte_unified.settings import Log
logs.configure(Log(level=sys.argv[1], format=sys.argv[2]))
log = structlog.get_logger()
log.debug("detail")
with structlog.contextvars.bound_contextvars(run="r1"):
    log.info("started", slots=2)
logging.getLogger("library").info("chatter")
logging.getLogger("flyte_unified.room").info("ours")
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("library").exception("lost %s", "it")
    log.exception("failed")
"""


@pytest.fixture
def written():
    """What a small program writes to standard error with a level and a format."""

    def run(level: str, form: str) -> str:
        command = [sys.executable, "-c", _PROGRAM, level, form]
        environ = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)}
        return subprocess.run(command, capture_output=True, check=True, text=True, env=environ).stderr

    return run


@pytest.mark.parametrize("form", ["json", "auto"])
def test_a_line_for_a_machine_is_one_json_object(written, form):
    """Context, level and time are fields, a traceback is one too; where nobody watches, this is the form."""
    lines = [orjson.loads(line) for line in written("info", form).splitlines()]
    assert [(line["event"], line["level"]) for line in lines] == [
        ("started", "info"),
        ("ours", "info"),
        ("lost it", "error"),
        ("failed", "error"),
    ]
    assert (lines[0]["run"], lines[0]["slots"]) == ("r1", 2)
    assert [line.get("logger") for line in lines] == [None, "flyte_unified.room", "library", None]
    assert all("ZeroDivisionError" in line["exception"] for line in lines[2:])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", lines[0]["timestamp"])


def test_a_line_for_people_begins_with_the_time_of_day(written):
    """The same lines, without colours where there is no terminal."""
    text = written("info", "console")
    assert re.search(r"^\d\d:\d\d:\d\d \[info +\] started +run=r1 slots=2$", text, re.MULTILINE)
    assert text.count("ZeroDivisionError: division by zero") == 2
    assert "\x1b" not in text


@pytest.mark.parametrize(("level", "events"), [("debug", 5), ("warning", 2), ("error", 2)])
def test_the_level_is_the_least_that_is_shown(written, level, events):
    """Libraries are never heard below ``warning``, whatever the level."""
    text = written(level, "json")
    assert len(text.splitlines()) == events
    assert "chatter" not in text
