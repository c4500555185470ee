"""``flyte_unified/operations/messages.py``: our own messages and their stubs, compiled from ``manager.proto``.

``python -m tests.generated_messages`` (``make generate``) writes it. betterproto2's compiler makes a tree of packages; ours is
one package, so what it needs of its root stands in the one file.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODULE = ROOT / "flyte_unified" / "operations" / "messages.py"
_PROTO = MODULE.with_name("manager.proto")
_POOL = "default_message_pool = betterproto2.MessagePool()"


def module() -> str:
    """Its text. Needs grpcio-tools, betterproto2_compiler and ruff."""
    scripts = Path(sys.executable).parent
    with tempfile.TemporaryDirectory() as directory:
        options = "client_generation=async,server_generation=async"
        command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{_PROTO.parent}", _PROTO.name]
        command += [f"--python_betterproto2_out={directory}", f"--python_betterproto2_opt={options}"]
        subprocess.run(command, check=True, env={**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ.get('PATH', '')}"})
        text = Path(directory, "flyte_unified", "v1", "__init__.py").read_text()
    text = text.replace("from ...message_pool import default_message_pool\n", f"{_POOL}\n")
    assert _POOL in text
    formatted = subprocess.run(
        [scripts / "ruff", "format", "--config", ROOT / "pyproject.toml", "-"],
        input=text,
        capture_output=True,
        text=True,
        check=True,
    )
    return formatted.stdout


if __name__ == "__main__":
    MODULE.write_text(module())
