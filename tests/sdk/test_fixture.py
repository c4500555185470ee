"""The pytest plugin in a test suite of somebody else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_example_of_the_readme_works(tmp_path: Path) -> None:
    """The test that the README shows, beside the example program, passes as it stands there."""
    readme = (ROOT / "README.md").read_text()
    example = next(block for block in readme.split("```python\n") if "def test_main" in block).partition("```")[0]
    (tmp_path / "test_hello.py").write_text(example)
    shutil.copy(ROOT / "examples" / "hello.py", tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env={"HOME": str(tmp_path), "PATH": os.environ["PATH"], "DO_NOT_TRACK": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr
