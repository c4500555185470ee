"""The pytest plugin: what ``pip install flyte-unified`` gives every test suite.

``flyte_backend`` is one server for the session, ``flyte_project`` a fresh project of it for each test. Nothing is imported
before a test asks for them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from flyte_unified.testing.backend import Backend

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def flyte_backend() -> Iterator[Backend]:
    """A server: ``flyte.init(endpoint=flyte_backend.endpoint, insecure=True, ...)``."""
    from flyte_unified.testing.backend import Backend

    with Backend() as backend:
        yield backend


@pytest.fixture
def flyte_project(flyte_backend: Backend) -> str:
    """The name of a project that no other test has."""
    name = f"test-{next(_numbers)}"
    flyte_backend.create_project(name)
    return name
