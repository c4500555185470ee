"""Flyte's control plane as one process. ``manager`` wires it; every other room is a package of this one."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("flyte-unified")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+unknown"
