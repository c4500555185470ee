"""flyte.yaml and docs/settings.md say what the declarations say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flyte_unified.cli import reference
from flyte_unified.settings import FIELDS, load

ROOT = Path(__file__).parents[3]
HOME = {"HOME": "/home/ada"}


@pytest.mark.parametrize(("path", "generate"), [("flyte.yaml", reference.template), ("docs/settings.md", reference.page)])
def test_the_generated_files_are_up_to_date(path, generate):
    """`make generate` has been run since a setting was last changed."""
    assert (ROOT / path).read_text() == generate()


def test_the_template_changes_nothing():
    """Every key of flyte.yaml is commented out."""
    assert load(file=ROOT / "flyte.yaml", environ=HOME) == load(environ=HOME)


def test_every_default_in_the_template_is_the_default(tmp_path):
    """Taking every ``#`` away gives every setting, with the value that it has anyway."""
    path = tmp_path / "flyte.yaml"
    path.write_text(re.sub(r"(?m)^  # (?=[a-z0-9_]+: \S+$|[a-z0-9_]+: \[.*\]$)", "  ", reference.template()))
    loaded = load(file=path, environ=HOME)
    assert loaded == load(environ=HOME)
    assert set(loaded.sources) == set(FIELDS)


def test_every_setting_is_read_by_something():
    """A setting that changes nothing would be a lie."""
    package = ROOT / "flyte_unified"
    text = "\n".join(path.read_text() for path in package.rglob("*.py") if path.name not in ("reference.py", "sections.py"))
    own = "\n".join(re.findall(r"self\.\w+", (package / "settings/sections.py").read_text()))
    unread = [key for key in FIELDS if not re.search(rf"\.{key.partition('.')[2]}\b(?! = )", text + own)]
    assert unread == []
