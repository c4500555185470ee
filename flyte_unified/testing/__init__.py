"""The server for other people's tests: in your own event loop, or as pytest fixtures (see ``plugin``)."""

from flyte_unified.testing.backend import Backend, running

__all__ = ["Backend", "running"]
