"""``flyte prefetch hf-model``: the SDK's own task and image, with Hugging Face's client, before a Hub of ours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sdk import packages
from tests.sdk.conftest import Client
from tests.sdk.hub import COMMIT, FILES, REPO, TOKEN, Hub, hub


@pytest.fixture(scope="module")
def serving() -> Iterator[Hub]:
    with hub() as found:
        yield found


@pytest.fixture(scope="module")
def user(client: Client, serving: Hub, tmp_path_factory: pytest.TempPathFactory) -> Client:
    """With a token for the Hub, and a project whose settings lead there."""
    directory = tmp_path_factory.mktemp("models")
    packages.need("huggingface-hub", "hf-transfer", "markdown", directory=directory / "packages")
    client.backend.create_project("models")
    user = Client(client.backend, directory / "home", "models", forks=client.forks)
    user.create_secret("HF_TOKEN", TOKEN)
    settings = directory / "settings.yaml"
    settings.write_text(f"environment_variables:\n  HF_ENDPOINT: {serving.url}\n  HF_HOME: {directory}/cache\n")
    user.flyte("edit", "settings", "--domain", "development", "--project", "models", "--from-file", str(settings))
    return user


def prefetched(user: Client, *options: str) -> tuple[str, Path]:
    """The run, and where the model lies."""
    output = user.flyte("prefetch", "hf-model", REPO, "--wait", *options)
    run, place = re.search(r"Started run (\w+)", output), re.search(r"Remote path:\s+(\S+)", output)
    assert run, output
    assert place, output + user.flyte("get", "logs", run[1])
    return run[1], Path(place[1])


def test_a_model_is_stored(user: Client) -> None:
    """Whole, as an artifact that has the Hub's commit as its version, and the model's facts; its card is the report, too."""
    run, place = prefetched(user)
    assert {path.name: path.read_bytes() for path in place.iterdir()} == FILES
    said = user.say("models", "snowdrop-2-5", run)
    artifact = said["artifact"]
    assert (artifact["version"], artifact["kind"], artifact["card"]) == (COMMIT, "model", "html")
    assert artifact["facts"].items() >= {"source_repo": REPO, "model_type": "snow", "architecture": "SnowModel"}.items()
    assert "Tells <em>winters</em> apart." in said["run"]["report"]


def test_a_model_is_fetched_once(user: Client, serving: Hub) -> None:
    """Who asks again gets what is there, by whatever name it is kept, and nothing is asked of the Hub."""
    _, place = prefetched(user, "--artifact-name", "snow")
    asked = len(serving.asked)
    run, again = prefetched(user, "--artifact-name", "snow")
    assert (again, len(serving.asked)) == (place, asked)
    assert "CACHE_HIT" in user.flyte("get", "action", run, "a0")
