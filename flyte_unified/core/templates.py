"""Flyte's template variables in a task's command line: ``{{.outputPrefix}}``, names in any case."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

_VARIABLE = re.compile(r"\{\{\s*[.$]([A-Za-z0-9_.]+)\s*\}\}")


def render(arguments: Iterable[str], variables: Mapping[str, str]) -> tuple[str, ...]:
    """``arguments`` with every variable of ``variables`` (keys in lower case) put in; others are left as they stand."""

    def value(match: re.Match[str]) -> str:
        return variables.get(match[1].lower(), match[0])

    return tuple(_VARIABLE.sub(value, argument) for argument in arguments)
