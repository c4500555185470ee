"""Which Python runs the tasks, and how a container's words become a command of it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from flyte_unified.launchers.processes import command
from flyte_unified.launchers.processes.interpreters import BadInterpreter, Interpreter, Interpreters, choose

OWN = Path(sys.executable)


def test_what_was_named_wins(tmp_path: Path) -> None:
    """``--python`` may be an interpreter or an environment's directory, with or without the SDK."""
    python = _environment(tmp_path / "named", sdk=False)
    active = _environment(tmp_path / "active", sdk=True)
    env = {"VIRTUAL_ENV": str(active.parent.parent)}
    assert choose(str(python), env=env, directory=tmp_path) == (python, "--python")
    assert choose(str(tmp_path / "named"), env=env, directory=tmp_path) == (python, "--python")


def test_what_was_named_must_exist(tmp_path: Path) -> None:
    """A wrong path is an error that repeats it, not a silent other choice."""
    with pytest.raises(BadInterpreter, match="no-such-python"):
        choose(str(tmp_path / "no-such-python"), env={}, directory=tmp_path)


def test_an_active_environment_comes_before_the_project_s(tmp_path: Path) -> None:
    """VIRTUAL_ENV, CONDA_PREFIX, ./.venv, ./venv, our own: the first that has the SDK."""
    own = choose(None, env={}, directory=tmp_path)
    assert own == (OWN, "the server's own")
    order = ("venv", ".venv", "conda", "active")
    pythons = [_environment(tmp_path / name, sdk=False) for name in order]
    env = {"CONDA_PREFIX": str(tmp_path / "conda"), "VIRTUAL_ENV": str(tmp_path / "active")}
    assert choose(None, env=env, directory=tmp_path) == own
    for name, python in zip(order, pythons, strict=True):
        _environment(tmp_path / name, sdk=True)
        assert choose(None, env=env, directory=tmp_path)[0] == python


async def test_an_interpreter_is_asked_what_it_has(tmp_path: Path) -> None:
    """Its version, the SDK's version and its directories, from the interpreter itself."""
    found, mark = await Interpreters().inspect(OWN)
    assert found.version == sys.version_info[:3]
    assert found.flyte == __import__("flyte").__version__
    assert (found.scripts / "a0").exists()
    assert mark == found.fingerprint()


async def test_an_interpreter_is_asked_again_when_something_was_installed(tmp_path: Path) -> None:
    """A package that appears is seen, without a restart of the server."""
    python, site = tmp_path / "bin/python", tmp_path / "lib/x-packages"
    python.parent.mkdir()
    site.mkdir(parents=True)
    python.write_text(f"""#!/bin/sh
if [ -e {site}/flyte-1.dist-info ]; then version='"1"'; else version=null; fi
echo "[[3, 12, 0], $version, \\"{tmp_path}/bin\\", [\\"{site}\\"]]"
""")
    python.chmod(0o755)
    interpreters = Interpreters()
    before, mark = await interpreters.inspect(python)
    assert before.flyte is None
    assert (await interpreters.inspect(python))[0] is before
    (site / "flyte-1.dist-info").mkdir()
    after, later = await interpreters.inspect(python)
    assert after.flyte == "1"
    assert later != mark


@pytest.mark.parametrize("fault", ["missing", "not executable", "failing", "something else"])
async def test_an_interpreter_that_does_not_work_is_named_with_the_way_out(tmp_path: Path, fault: str) -> None:
    """The error says which interpreter, why, and how to choose another."""
    python = tmp_path / "python"
    if fault != "missing":
        python.write_text("#!/bin/sh\n" if fault == "something else" else "#!/bin/sh\necho broken libraries >&2; exit 1\n")
        python.chmod(0o644 if fault == "not executable" else 0o755)
    with pytest.raises(BadInterpreter) as raised:
        await Interpreters().inspect(python)
    for part in (str(python), "--python", "FLYTE_UNIFIED_PYTHON"):
        assert part in raised.value.message
    assert ("broken libraries" in raised.value.message) == (fault == "failing")


def test_console_scripts_are_found_beside_the_interpreter(tmp_path: Path) -> None:
    """The first word is looked up in the interpreter's own directory before PATH; scripts of Python run in it."""
    interpreter = _interpreter(tmp_path)
    script = tmp_path / "bin/sh"
    script.write_text("#!/elsewhere/python3\n")
    found = command.resolve(("sh", "--x"), interpreter, env={"PATH": "/bin"})
    assert found.command == (str(interpreter.path), str(script), "--x")
    assert found.source == str(script)
    assert found.argv == (str(script), "--x")
    script.write_text("#!/bin/sh\n'''exec' /a/very/long/path/python \"$0\" \"$@\"\n' '''\n")
    assert command.resolve(("sh",), interpreter, env={}).source == str(script)
    script.write_text("#!/bin/sh\necho\n")
    assert command.resolve(("sh",), interpreter, env={}) == command.Program((str(script),))


def test_the_sdk_s_program_is_started_by_ours(tmp_path: Path) -> None:
    """``a0`` is a file of ours that starts the SDK's, the same for plain and for forked tasks."""
    found = command.resolve(("a0", "x"), _interpreter(tmp_path), env={"PATH": "/nowhere"})
    assert found == command.Program(
        (str(tmp_path / "bin/python"), command.RUNTIME, "x"), command.RUNTIME, (command.RUNTIME, "x")
    )
    assert "flyte._bin.runtime" in Path(command.RUNTIME).read_text()


def test_python_is_the_task_s_own(tmp_path: Path) -> None:
    """``python`` means the chosen interpreter; other programs come from PATH, or are left for the system to miss."""
    interpreter = _interpreter(tmp_path)
    env = {"PATH": os.defpath}
    assert command.resolve(("python", "-V"), interpreter, env=env).command == (str(interpreter.path), "-V")
    assert Path(command.resolve(("sh", "-c", ":"), interpreter, env=env).command[0]).name == "sh"
    assert command.resolve(("missing",), interpreter, env=env) == command.Program(("missing",))


def _interpreter(root: Path) -> Interpreter:
    python = _environment(root, sdk=False)
    return Interpreter(path=python, version=(3, 12, 0), flyte="2", scripts=root / "scripts", sites=())


def _environment(prefix: Path, *, sdk: bool) -> Path:
    python = prefix / "bin/python"
    python.parent.mkdir(parents=True, exist_ok=True)
    python.touch(0o755)
    if sdk:
        package = prefix / "lib/python3.12/site-packages/flyte"
        package.mkdir(parents=True, exist_ok=True)
        (package / "__init__.py").touch()
    return python
