"""Import rules that ``.importlinter`` has no words for."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[3] / "flyte_unified"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "migrations" not in path.parts)

CLOSED = {
    "ledger", "runs", "dataproxy", "cache", "tasks", "projects", "identity", "images", "triggers", "settings_service",
    "secrets", "apps", "artifacts", "tracked",
}  # fmt: skip
"""The services, and the ledger under them: rooms with an inside."""
COMPOSERS = {"cli", "testing", "manager", "planes", "operations", "__main__"}
"""Where rooms are put together, from their insides."""


def imported(path: Path) -> Iterator[str]:
    """The modules that ``path`` imports, by full name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides which room is meant"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if is_module(full) else str(node.module)


def is_module(name: str) -> bool:
    path = PACKAGE.parent.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def entered(path: Path) -> list[str]:
    """What ``path`` imports from the inside of another room."""
    room = path.relative_to(PACKAGE).with_suffix("").parts[0]
    found = []
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == PACKAGE.name and len(parts) > 2 and parts[1] in CLOSED - {room} and parts[2] != "api":
            found.append(name)
    return found


def test_a_service_is_entered_by_its_api():
    """What is behind ``x.api`` can change without a look at the rest. (Tables and lists are every store's.)"""
    inside = {
        str(path.relative_to(PACKAGE)): names
        for path in MODULES
        if path.relative_to(PACKAGE).with_suffix("").parts[0] not in COMPOSERS and (names := entered(path))
    }
    assert inside == {}


def test_the_rule_sees_every_way_to_import(tmp_path, monkeypatch):
    """Whole modules, names of modules and names in modules, at the top or in a function."""
    room = tmp_path / "flyte_unified"
    for name in ("runs/__init__.py", "runs/store.py", "runs/api.py", "tasks/service.py"):
        (room / name).parent.mkdir(parents=True, exist_ok=True)
        (room / name).touch()
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", room)
    path = room / "tasks" / "service.py"
    path.write_text(
        "import flyte_unified.runs.store\n"
        "from flyte_unified.runs import store, api\n"
        "from flyte_unified.runs.api import Run\n"
        "def f():\n    from flyte_unified.runs.store import insert\n"
    )
    assert entered(path) == ["flyte_unified.runs.store"] * 3


def test_what_runs_by_path_needs_the_standard_library_alone():
    """The fork server is one file in a task's interpreter; the keeper, which outlives the server, a few in ours."""
    processes = "flyte_unified.launchers.processes"
    needed, seen = [f"{processes}.keeper"], set()
    while needed:
        seen.add(name := needed.pop())
        if name.startswith(f"{processes}."):
            needed += set(imported(PACKAGE.parent.joinpath(*name.split(".")).with_suffix(".py"))) - seen
    foreign = {name for name in seen if name.partition(".")[0] not in sys.stdlib_module_names}
    assert {name for name in foreign if not name.startswith(f"{processes}.")} == set()
    alone = set(imported(PACKAGE / "launchers" / "processes" / "forkserver.py"))
    assert {name.partition(".")[0] for name in alone} <= sys.stdlib_module_names


def test_files_are_of_a_size_that_one_can_read():
    """500 lines at most."""
    written = [path for path in MODULES if path.relative_to(PACKAGE) != Path("operations/messages.py")]
    lines = {str(path.relative_to(PACKAGE)): path.read_text().count("\n") for path in written}
    assert {path: count for path, count in lines.items() if count > 500} == {}
