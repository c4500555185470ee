"""Tasks in images: of layers, of somebody else's, and such as nobody can have here. Beside it lie wheels and a file."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from pathlib import Path

import flyte

HERE = Path(__file__).parent
base = flyte.Image.from_debian_base(name="snow")
offline = f"--no-index --find-links {HERE / 'wheels'}"
snow = flyte.TaskEnvironment(
    name="snow",
    image=base.with_pip_packages("snowdrop==1.0", extra_args=offline)
    .with_env_vars({"COLOUR": "white", "SHADE": "off-${COLOUR}"})
    .with_workdir("/app")
    .with_source_file(HERE / "notes.txt", "in/"),
)
secret = flyte.TaskEnvironment(
    name="secret",
    image=base.with_pip_packages(
        "snowdrop @ file://$PLACE/snowdrop-2.0-py3-none-any.whl", secret_mounts=[flyte.Secret("place", as_env_var="PLACE")]
    ),
)
foreign = flyte.TaskEnvironment(name="foreign", image=flyte.Image.from_base("ghcr.io/acme/tool:7"))
commanded = flyte.TaskEnvironment(name="commanded", image=base.with_commands(["touch /tmp/never"]))
endless = flyte.TaskEnvironment(
    name="endless",
    image=base.with_pip_packages("snowdrop", index_url=(HERE / "index").read_text() if (HERE / "index").exists() else None),
)


def snowdrop() -> str:
    import snowdrop  # type: ignore[import-not-found]  # in the image alone

    return str(snowdrop.VERSION)


@snow.task
async def child() -> str:
    return f"{snowdrop()} {Path(sys.prefix).name}"


@snow.task
async def main() -> str:
    notes = Path("in/notes.txt")
    words = [await child(), Path(sys.prefix).name, os.environ["SHADE"], notes.read_text(), importlib.metadata.version("flyte")]
    notes.write_text("changed")
    return " ".join(words)


@snow.task
async def lacking() -> None:
    import crocus  # type: ignore[import-not-found]  # nowhere

    crocus.bloom()


@secret.task
async def fetched() -> str:
    return f"{snowdrop()} {os.environ.get('PLACE')}"


@foreign.task
async def elsewhere() -> str:
    return Path(sys.prefix).name


@commanded.task
async def never() -> None: ...


@endless.task
async def late() -> None: ...


if __name__ == "__main__":
    flyte.init_from_config()
    assert isinstance(snow.image, flyte.Image)
    print(flyte.build(snow.image, force=True).uri)
