"""Flyte's control plane as one process. ``manager`` wires it; every other room is a package of this one."""

__version__ = "0.1.0"
