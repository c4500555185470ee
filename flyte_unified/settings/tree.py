# ruff: noqa: RUF009  # sections are frozen
"""Every setting there is, as one typed tree: defaults < ``flyte.yaml`` < environment < flags.

The dataclasses of ``sections`` are the only place where a setting is described: the parser, the command line's flags,
``flyte.yaml`` and ``docs/settings.md`` are all derived from them. Plain dataclasses and no validation library, because
the first thing a start pays for is its imports.

``load`` reads nothing that it is not given, so ``load()`` is the defaults and ``load(flags={"data.dir": path})`` a
server for a test.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from flyte_unified.core.errors import FlyteUnifiedError
from flyte_unified.settings.sections import (
    Apps,
    Cache,
    Connectors,
    Data,
    Database,
    Execution,
    Identity,
    Images,
    Kubernetes,
    Log,
    Notifications,
    Operators,
    Pods,
    Projects,
    Queues,
    Server,
    Storage,
    Strings,
    Tracked,
    Triggers,
)

ENV_PREFIX = "FLYTE_UNIFIED_"
CONFIG_VARIABLE = "FLYTE_UNIFIED_CONFIG"
_OTHER_VARIABLES = frozenset({CONFIG_VARIABLE, "FLYTE_UNIFIED_PYTHON"})
"""Ours, but no settings: where the file is, and (in a run's environment) the interpreter of its tasks."""

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_ANY = frozenset({"0.0.0.0", "::"})

_PASSWORD = re.compile(r"(?<=://)([^/:@\s]*):[^/@\s]*@")

T = TypeVar("T")


class SettingsError(FlyteUnifiedError):
    """A setting is unknown, cannot be read, or contradicts another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The whole tree. ``sources`` says for each ``section.key`` that is not a default where its value is from."""

    server: Server = Server()
    data: Data = Data()
    database: Database = Database()
    storage: Storage = Storage()
    execution: Execution = Execution()
    kubernetes: Kubernetes = Kubernetes()
    pods: Pods = Pods()
    operators: Operators = Operators()
    connectors: Connectors = Connectors()
    apps: Apps = Apps()
    queues: Queues = Queues()
    notifications: Notifications = Notifications()
    images: Images = Images()
    cache: Cache = Cache()
    projects: Projects = Projects()
    triggers: Triggers = Triggers()
    tracked: Tracked = Tracked()
    log: Log = Log()
    identity: Identity = Identity()
    file: Path | None = field(default=None, compare=False)
    """The file that was read."""
    sources: Mapping[str, str] = field(default_factory=dict, compare=False)

    def values(self) -> Iterator[tuple[str, Any, str]]:
        """``(section.key, value, source)`` of every setting, in the order of this file."""
        for key, (section, name) in KEYS.items():
            yield key, getattr(getattr(self, section), name), self.sources.get(key, "default")

    def with_values(self, values: Mapping[str, Any], *, source: str) -> Settings:
        """A copy with some ``section.key`` replaced by values of their final type."""
        tree = self
        for key, value in values.items():
            section, name = KEYS[key]
            tree = replace(tree, **{section: replace(getattr(tree, section), **{name: value})})
        return replace(tree, sources={**self.sources, **dict.fromkeys(values, source)})

    @property
    def database_file(self) -> Path:
        """The SQLite database."""
        return self.data.dir / "flyte.db"

    @property
    def images_dir(self) -> Path:
        """Where virtual environments are kept."""
        return Path(self.images.dir) if self.images.dir else self.data.dir / "images"

    def base_url(self, port: int) -> str:
        """Where clients reach a server that listens on ``port``, without a trailing slash."""
        return self.server.public_url.rstrip("/") or self.local_url(port)

    def local_url(self, port: int) -> str:
        """The same for programs on this machine."""
        host = "localhost" if self.server.host in LOOPBACK | _ANY else self.server.host
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    @property
    def hosts(self) -> tuple[str, ...]:
        """Host headers that are answered beside loopback names: those that are named, and those of our own addresses."""
        own = (urlsplit(address).hostname for address in (self.server.public_url, self.server.task_url))
        return (*self.server.allowed_hosts, *filter(None, own))

    def ephemeral_in(self, directory: Path) -> Settings:
        """The same server with its data in ``directory``. Code bundles stay where they were."""
        values: dict[str, Any] = {"data.dir": directory}
        if self.storage.root == str(self.data.dir / "storage"):
            values["storage.root"] = str(directory / "storage")
        return self.with_values(values, source="ephemeral")


SECTIONS: dict[str, type] = {
    "server": Server,
    "data": Data,
    "database": Database,
    "storage": Storage,
    "execution": Execution,
    "kubernetes": Kubernetes,
    "pods": Pods,
    "operators": Operators,
    "connectors": Connectors,
    "apps": Apps,
    "queues": Queues,
    "notifications": Notifications,
    "images": Images,
    "cache": Cache,
    "projects": Projects,
    "triggers": Triggers,
    "tracked": Tracked,
    "log": Log,
    "identity": Identity,
}
FIELDS: dict[str, Field[Any]] = {f"{name}.{f.name}": f for name, section in SECTIONS.items() for f in fields(section)}
"""``section.key`` to the declaration of each setting."""
KEYS: dict[str, tuple[str, str]] = {key: (key.partition(".")[0], key.partition(".")[2]) for key in FIELDS}


def variable(key: str) -> str:
    """The environment variable of ``section.key``."""
    return ENV_PREFIX + key.replace(".", "_").upper()


def written(key: str, value: Any) -> str:
    """``value`` as it may stand in ``flyte.yaml``, in the largest unit that keeps it whole."""
    match str(FIELDS[key].type):
        case "Seconds":
            times = (("d", 86400), ("h", 3600), ("m", 60))
            return next((f"{value / f:.0f}{u}" for u, f in times if value >= f and value % f == 0), f"{value:g}s")
        case "Size":
            sizes = (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))
            return next((f"{value // f}{u}" for u, f in sizes if value >= f and value % f == 0), str(value))
        case "Strings":
            return f"[{', '.join(value)}]"
        case "bool":
            return str(value).lower()
    return '""' if value in ("", Path()) else str(value)


def shown(key: str, value: Any) -> str:
    """``value`` as ``written``, as it may be shown to anybody: without passwords."""
    if value and FIELDS[key].metadata["secret"]:
        return "***"
    return _PASSWORD.sub(r"\1:***@", written(key, value))


def scheme(address: str) -> str:
    """What stands before ``://``; empty for a path."""
    return address.partition("://")[0] if "://" in address else ""


def remote_bundles(root: str) -> str:
    """Where code bundles lie by default with a ``storage.root`` that is no directory; empty where it is one."""
    return f"{root.rstrip('/')}/_bundles" if scheme(root) else ""


def find_file(chosen: str | None, *, environ: Mapping[str, str], cwd: Path | None = None) -> Path | None:
    """The settings file: ``chosen``, else $FLYTE_UNIFIED_CONFIG, else ./flyte.yaml, else the user's own, else None."""
    for value, source in ((chosen, "--config"), (environ.get(CONFIG_VARIABLE), CONFIG_VARIABLE)):
        if value:
            path = Path(value).expanduser().absolute()
            if not path.is_file():
                raise SettingsError(f"{source}: there is no file {path}")
            return path
    candidates = ((cwd or Path.cwd()) / "flyte.yaml", _home(environ) / ".flyte-unified" / "flyte.yaml")
    return next((path for path in candidates if path.is_file()), None)


def load(
    *, file: Path | None = None, environ: Mapping[str, str] | None = None, flags: Mapping[str, Any] | None = None
) -> Settings:
    """The settings from ``file``, then ``environ``, then ``flags`` (``section.key`` to value); later ones win.

    Raises SettingsError naming the key, the value and the source.
    """
    environ = environ or {}
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for key, raw, source, base in (
        *_from_file(file),
        *_from_environ(environ),
        *((key, raw, f"flag {_flag(key)}", None) for key, raw in (flags or {}).items()),
    ):
        values[key] = _parse(key, raw, source=source, base=base)
        sources[key] = source
    settings = replace(Settings().with_values(values, source=""), file=file, sources=sources)
    settings = _derived(settings, environ)
    _check(settings)
    return settings


def _from_file(file: Path | None) -> Iterator[tuple[str, Any, str, Path | None]]:
    if file is None:
        return
    import yaml  # most starts have no file

    try:
        tree = yaml.safe_load(file.read_text()) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"{file}: {error}") from error
    if not isinstance(tree, dict):
        raise SettingsError(f"{file}: a mapping of sections is expected, not {type(tree).__name__}")
    for section, content in tree.items():
        if section not in SECTIONS:
            raise SettingsError(f"{file}: unknown section {section!r}{_nearest(str(section), SECTIONS)}")
        if not isinstance(content, dict | None):
            raise SettingsError(f"{file}: {section} must hold settings, not {content!r}")
        for name, raw in (content or {}).items():
            key = f"{section}.{name}"
            if key not in FIELDS:
                raise SettingsError(f"{file}: unknown setting {key!r}{_nearest(key, FIELDS)}")
            if raw is not None:
                yield key, raw, f"{file}:{key}", file.parent


def _from_environ(environ: Mapping[str, str]) -> Iterator[tuple[str, Any, str, Path | None]]:
    keys = {variable(key): key for key in FIELDS}
    for name, raw in environ.items():
        if not name.startswith(ENV_PREFIX) or name in _OTHER_VARIABLES:
            continue
        if name not in keys:
            raise SettingsError(f"unknown environment variable {name}{_nearest(name, (*keys, *_OTHER_VARIABLES))}")
        yield keys[name], raw, name, None


def _flag(key: str) -> str:
    if key not in FIELDS:
        raise SettingsError(f"unknown setting {key!r}{_nearest(key, FIELDS)}")
    return FIELDS[key].metadata["flag"] or key


def _nearest(name: str, known: Any) -> str:
    import difflib  # only an error needs it

    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.4)
    return f"; the nearest known one is {found[0]!r}" if found else ""


def _parse(key: str, raw: Any, *, source: str, base: Path | None) -> Any:
    """``raw`` (text, or what YAML made of it) as the type of ``key``. ``base`` is what a relative path starts from."""
    declared = FIELDS[key]
    try:
        value = _PARSERS[str(declared.type)](raw)
        if (least := declared.metadata["least"]) is not None and value < least:
            raise ValueError(f"at least {least} is expected")
        if (choices := declared.metadata["choices"]) and value not in choices:
            raise ValueError(f"one of {', '.join(choices)} is expected{_nearest(str(value), choices)}")
        if key in _URLS and value:
            _check_url(value)
    except ValueError as error:
        raise SettingsError(f"{key} = {raw!r} (from {source}): {error}") from error
    if key in _PATHS and raw != "" and "://" not in str(value):
        value = type(value)((base or Path.cwd()) / Path(value).expanduser())
    return value


_PATHS = frozenset({"data.dir", "storage.root", "storage.bundles", "execution.python", "images.dir", "notifications.file"})
_URLS = frozenset({"server.public_url", "server.task_url", "apps.url"})
_TIME_UNITS = {"ms": 0.001, "": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZE_UNITS = {"": 1, "b": 1} | {
    prefix + suffix: base**power
    for power, prefix in enumerate("kmgt", 1)
    for suffix, base in (("ib", 1024), ("b", 1000), ("i", 1024), ("", 1000))
}
_QUANTITY = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([a-z]*)")


def _amount(raw: Any, units: Mapping[str, float], example: str) -> float:
    match = None if isinstance(raw, bool) else _QUANTITY.fullmatch(str(raw).strip().lower())
    if match is None or match[2] not in units:
        raise ValueError(f"a number is expected, with a unit if you like: {example}")
    return float(match[1]) * units[match[2]]


def _bool(raw: Any) -> bool:
    words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    if (word := str(raw).strip().lower()) not in words:
        raise ValueError("true or false is expected")
    return words[word]


def _number(kind: Callable[[str], T], name: str) -> Callable[[Any], T]:
    def parse(raw: Any) -> T:
        try:
            return kind(str(raw).strip())
        except ValueError:
            raise ValueError(f"{name} is expected") from None

    return parse


def _text(raw: Any) -> str:
    if isinstance(raw, dict | list | tuple | bool):
        raise ValueError("text is expected")
    return str(raw)


def _check_url(text: str) -> None:
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is none
        good = False
    if not good:
        raise ValueError("an address is expected: https://flyte.example.org, or http://host:port")


def _strings(raw: Any) -> Strings:
    if isinstance(raw, str):
        raw = [part for part in raw.split(",") if part.strip()]
    if not isinstance(raw, list | tuple):
        raise ValueError("a list is expected")
    return tuple(_text(part).strip() for part in raw)


_PARSERS: dict[str, Callable[[Any], Any]] = {
    "str": _text,
    "Path": lambda raw: Path(_text(raw)),
    "bool": _bool,
    "int": _number(int, "a whole number"),
    "float": _number(float, "a number"),
    "Seconds": lambda raw: _amount(raw, _TIME_UNITS, "500ms, 30s, 5m, 1h"),
    "Size": lambda raw: int(_amount(raw, _SIZE_UNITS, "65536, 64MiB, 1GB")),
    "Strings": _strings,
}


def _home(environ: Mapping[str, str]) -> Path:
    return Path(environ["HOME"]) if environ.get("HOME") else Path.home()


def _derived(settings: Settings, environ: Mapping[str, str]) -> Settings:
    """Fill what is empty by default and follows from the rest, so that nobody else has to know the rule."""
    directory = settings.data.dir
    if directory == Path():
        xdg = environ.get("XDG_DATA_HOME")
        directory = Path(xdg) / "flyte-unified" if xdg else _home(environ) / ".flyte-unified"
    told = settings.storage
    root = told.root or str(directory / "storage")
    storage = replace(told, root=root, bundles=told.bundles or remote_bundles(root) or str(directory / "bundles"))
    if scheme(root) == "s3":
        storage = replace(
            storage,
            s3_endpoint=told.s3_endpoint or environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL", ""),
            s3_region=told.s3_region or environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or "us-east-1",
        )
    return replace(
        settings,
        data=replace(settings.data, dir=directory),
        storage=storage,
        execution=replace(settings.execution, slots=settings.execution.slots or os.cpu_count() or 1),
    )


def _check(settings: Settings) -> None:
    """What no single setting shows."""
    server, execution = settings.server, settings.execution
    if settings.database.url and not settings.database.url.startswith(("postgresql://", "postgres://")):
        raise SettingsError("database.url: an address that begins with postgresql:// is expected")
    if server.port > 65535:
        raise SettingsError(f"server.port = {server.port}: a port is at most 65535")
    if server.host not in LOOPBACK and not server.insecure_public:
        raise SettingsError(
            f"server.host = {server.host!r}: whoever reaches this address could run code as you; "
            "--insecure-public (server.insecure_public) says that this is wanted"
        )
    if execution.process_watermark > execution.process_limit:
        raise SettingsError(
            f"execution.process_watermark = {execution.process_watermark} is above "
            f"execution.process_limit = {execution.process_limit}"
        )
    if execution.launcher == "pods" and not server.key:
        raise SettingsError(
            "server.key is empty: pods outlive the server, and only a key that stays lets them call the next one; "
            "make one with: openssl rand -base64 32"
        )
    if not settings.projects.domains:
        raise SettingsError("projects.domains is empty: every run is in a domain")
