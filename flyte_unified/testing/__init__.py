"""The server for other people's tests: in your own event loop, or as pytest fixtures (see ``plugin``).

pytest loads the plugin, and so this package, in every test suite beside it: the server is imported when it is named.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flyte_unified.testing.backend import Backend, running

__all__ = ["Backend", "running"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from flyte_unified.testing import backend

    return getattr(backend, name)
