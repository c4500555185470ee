"""Go's templates, as far as notifications use them: variables such as ``{{.Run.Name}}``. Pure.

What stands in braces and looks like none of Go's actions stays as it is: other systems' cards have templates of their own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from flyte_unified.core.errors import InvalidArgument

OF_RUNS = frozenset({"Run.Org", "Run.Project", "Run.Domain", "Run.Name", "Phase", "Error"})
"""flyteidl2.notification.RunCompletedNotificationTemplateData"""
OF_CONDITIONS = frozenset(
    {
        "Action.Run.Org",
        "Action.Run.Project",
        "Action.Run.Domain",
        "Action.Run.Name",
        "Action.Name",
        "Prompt",
        "Description",
        "PromptType",
    }
)
"""flyteidl2.notification.ActionPausedNotificationTemplateData"""

_ACTION = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}", re.DOTALL)
_VARIABLE = re.compile(r"\{\{-?\s*\.([A-Za-z][A-Za-z0-9_.]*)\s*-?\}\}")
_OTHER = re.compile(r"(if|else|end|range|with|define|template|block)\b|.*(^|[\s(])\.[A-Za-z]", re.DOTALL)


def check(text: str, known: Collection[str], *, field: str) -> None:
    """Raises InvalidArgument for a variable that is none of ``known``, and for anything that is more than a variable."""
    for action in _ACTION.finditer(text):
        variable = _VARIABLE.fullmatch(action[0])
        if variable is not None and variable[1] not in known:
            names = ", ".join(f"{{{{.{name}}}}}" for name in sorted(known))
            raise InvalidArgument(f"{field}: there is no variable {action[0][:80]}; known are {names}")
        if variable is None and _OTHER.match(action[1]):
            raise InvalidArgument(f"{field}: {action[0][:80]} is no variable, and nothing else is known here")


def render(text: str, values: Mapping[str, str], escape: Callable[[str], str] = str) -> str:
    """``text`` with the variables of ``values`` put in."""
    return _VARIABLE.sub(lambda match: escape(values[match[1]]) if match[1] in values else match[0], text)


def render_body(text: str, values: Mapping[str, str]) -> tuple[str, bool]:
    """The same, and whether it is JSON: there a value stays in its string, whatever characters it has."""
    try:
        tree = json.loads(text)
    except ValueError:
        return render(text, values), False
    return json.dumps(_rendered(tree, values)), True


def _rendered(tree: Any, values: Mapping[str, str]) -> Any:
    match tree:
        case str():
            return render(tree, values)
        case list():
            return [_rendered(item, values) for item in tree]
        case dict():
            return {render(name, values): _rendered(item, values) for name, item in tree.items()}
    return tree
