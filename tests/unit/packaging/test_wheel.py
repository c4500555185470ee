"""What `pip install` gives people is whole."""

from __future__ import annotations

import re
import tomllib
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parents[3]


@pytest.fixture
def wheel(tmp_path):
    """The wheel of this tree."""
    (built,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(built) as archive:
        yield archive


def test_the_wheel_has_what_is_no_module(wheel):
    """Migrations move an old database, ``py.typed`` tells type checkers, and the licence goes along."""
    names = set(wheel.namelist())
    migrations = {f"flyte_unified/db/{path.relative_to(ROOT)}" for path in (ROOT / "migrations").rglob("*.py")}
    assert migrations
    assert migrations | {"flyte_unified/db/migrations/script.py.mako", "flyte_unified/py.typed"} <= names
    assert any(name.endswith("/licenses/LICENSE") for name in names)


def test_the_wheel_has_nothing_else(wheel):
    """Tests, examples and settings of this repository stay here."""
    assert {name.partition("/")[0].partition("-")[0] for name in wheel.namelist()} == {"flyte_unified"}


def test_the_command_and_the_pytest_plugin_are_entry_points(wheel):
    """Both are found by name after an installation, and both exist."""
    (name,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    text = wheel.read(name).decode()
    assert "flyte-unified = flyte_unified.cli:main" in text
    assert "flyte_unified = flyte_unified.testing.plugin" in text
    assert "flyte_unified/testing/plugin.py" in wheel.namelist()


def test_the_image_gets_what_it_is_made_of():
    """The build of config/Dockerfile sees what the wheel needs and what it copies, and nothing else of a checkout."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    seen = {line[1:] for line in lines if line.startswith("!")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    copied = re.findall(r"^COPY (?!\.)(\S+)", (ROOT / "config/Dockerfile").read_text(), re.MULTILINE)
    wanted = {"LICENSE", "pyproject.toml", project["project"]["readme"], *wheel["packages"], *wheel["force-include"], *copied}
    assert seen == wanted
    assert all((ROOT / name).exists() for name in seen)
