"""The pytest plugin: what ``pip install flyte-unified`` gives every test suite.

``flyte_backend`` is one server for the session, ``flyte_project`` a fresh project of it for each test, ``flyte_config`` a file
that leads the SDK and its command line there. Nothing is imported before a test asks for them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from flyte_unified.testing.backend import Backend

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def flyte_backend_settings() -> Mapping[str, Any]:
    """Settings of ``flyte_backend`` by ``section.key``; a conftest.py that wants others defines this fixture anew."""
    return {}


@pytest.fixture(scope="session")
def flyte_backend(flyte_backend_settings: Mapping[str, Any]) -> Iterator[Backend]:
    """A server: ``flyte.init(endpoint=flyte_backend.endpoint, insecure=True, ...)``."""
    from flyte_unified.testing.backend import Backend

    with Backend(flyte_backend_settings) as backend:
        yield backend


@pytest.fixture
def flyte_project(flyte_backend: Backend) -> str:
    """The name of a project that no other test has."""
    name = f"test-{next(_numbers)}"
    flyte_backend.create_project(name)
    return name


@pytest.fixture
def flyte_config(flyte_backend: Backend, flyte_project: str, tmp_path: Path) -> Path:
    """``flyte.init_from_config(flyte_config)``, or FLYTECTL_CONFIG in the environment of a program."""
    return flyte_backend.write_config(tmp_path / "flyte.yaml", project=flyte_project)
