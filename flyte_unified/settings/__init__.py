"""Every setting there is: see ``sections`` for what they are, ``tree`` for how they are read."""

from flyte_unified.settings.sections import Apps, Connectors, Kubernetes, Log, Operators, Pods, Storage
from flyte_unified.settings.tree import (
    CONFIG_VARIABLE,
    ENV_PREFIX,
    FIELDS,
    KEYS,
    LOOPBACK,
    SECTIONS,
    Settings,
    SettingsError,
    find_file,
    load,
    remote_bundles,
    scheme,
    variable,
    written,
)

__all__ = [
    "CONFIG_VARIABLE",
    "ENV_PREFIX",
    "FIELDS",
    "KEYS",
    "LOOPBACK",
    "SECTIONS",
    "Apps",
    "Connectors",
    "Kubernetes",
    "Log",
    "Operators",
    "Pods",
    "Settings",
    "SettingsError",
    "Storage",
    "find_file",
    "load",
    "remote_bundles",
    "scheme",
    "variable",
    "written",
]
