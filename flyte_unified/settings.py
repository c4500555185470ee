# ruff: noqa: RUF009  # _setting() returns a dataclass field, not a shared value
"""Every setting there is, as one typed tree: defaults < ``flyte.yaml`` < environment < flags.

The dataclasses below are the only place where a setting is described: the parser, the command line's flags,
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
from typing import Any, TypeAlias, TypeVar

from flyte_unified.core.errors import FlyteUnifiedError

ENV_PREFIX = "FLYTE_UNIFIED_"
CONFIG_VARIABLE = "FLYTE_UNIFIED_CONFIG"
_OTHER_VARIABLES = frozenset({CONFIG_VARIABLE, "FLYTE_UNIFIED_PYTHON"})
"""Ours, but no settings: where the file is, and (in a run's environment) the interpreter of its tasks."""

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_ANY = frozenset({"0.0.0.0", "::"})

Seconds: TypeAlias = float
"""A duration; written as a number of seconds or with a unit: ``500ms``, ``30s``, ``5m``, ``1h``, ``2d``."""
Size: TypeAlias = int
"""An amount of bytes; written as a number or with a unit: ``64MiB``, ``1GB``."""
Strings: TypeAlias = tuple[str, ...]
"""Written as a list, or as text with commas."""

T = TypeVar("T")


class SettingsError(FlyteUnifiedError):
    """A setting is unknown, cannot be read, or contradicts another."""


def _setting(
    default: T, doc: str, *, flag: str = "", choices: Strings = (), least: float | None = None, secret: bool = False
) -> T:
    """A field with what people need to know of it. ``flag`` is its option on the command line, if it has one.

    A ``secret`` is shown to nobody.
    """
    metadata = {"doc": doc, "flag": flag, "choices": choices, "least": least, "secret": secret}
    declared: T = field(default=default, repr=not secret, metadata=metadata)
    return declared


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """The one port, and how it is reached."""

    host: str = _setting(
        "localhost",
        "Address to listen on. `localhost` is both 127.0.0.1 and ::1; any other needs `insecure_public`.",
        flag="--host",
    )
    port: int = _setting(30080, "The one port: API, console and files. 0 takes a free one.", flag="--port", least=0)
    public_url: str = _setting("", "Base of links and signed URLs. Empty: `http://localhost:<port>`.")
    task_url: str = _setting("", "Base at which tasks call back. Empty: `public_url`.")
    allowed_hosts: Strings = _setting((), "Host headers answered beside loopback names and `*.localhost`.")
    cors_origins: Strings = _setting((), "Origins beside our own whose pages may call the API.")
    insecure_public: bool = _setting(False, "Listen beyond loopback although nobody has to sign in.", flag="--insecure-public")
    shutdown_grace: Seconds = _setting(5.0, "How long a stop waits for calls and tasks to end.", least=0)
    max_message_bytes: Size = _setting(64 << 20, "Largest message accepted or sent.", least=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Where the server keeps its files."""

    dir: Path = _setting(
        Path(),
        "Data directory. Empty: `$XDG_DATA_HOME/flyte-unified`, or `~/.flyte-unified` without that variable.",
        flag="--data-dir",
    )
    ephemeral: bool = _setting(
        False, "Keep everything but code bundles in a temporary directory, removed at the end.", flag="--ephemeral"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """The ledger's database."""

    url: str = _setting(
        "", "Address of a Postgres database: `postgresql://user:password@host:port/name`. Empty: SQLite, in the data directory."
    )
    pool_size: int = _setting(8, "Connections to Postgres that read; two more write and listen.", least=1)
    statement_timeout: Seconds = _setting(30.0, "How long Postgres may take for one statement.", least=0.1)
    queue_limit: int = _setting(10_000, "Writes that may wait; more are refused as RESOURCE_EXHAUSTED.", least=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """Where inputs, outputs and code bundles are kept."""

    root: str = _setting(
        "",
        "Directory of inputs and outputs, or `s3://bucket/prefix`, `gs://...`, `abfs://...`. Empty: `storage` in the data "
        "directory.",
    )
    bundles: str = _setting(
        "",
        "Directory or address of code bundles. Empty: `_bundles` below a `root` that is no directory; else `bundles` in the "
        "data directory, and never in an ephemeral one: clients remember for a day where they uploaded.",
    )
    s3_endpoint: str = _setting("", "URL of the S3 server. Empty: `$AWS_ENDPOINT_URL_S3`, `$AWS_ENDPOINT_URL`, else AWS.")
    s3_public_endpoint: str = _setting(
        "", "URL of the same server for clients: signed URLs begin with it. Empty: `s3_endpoint`."
    )
    s3_region: str = _setting("", "Region of the bucket. Empty: `$AWS_REGION`, `$AWS_DEFAULT_REGION`, else us-east-1.")
    s3_access_key: str = _setting(
        "",
        "Access key, given to tasks too. Empty: `$AWS_ACCESS_KEY_ID` and its kin, else `~/.aws/credentials`, else the "
        "machine's IAM role; tasks then find theirs in the same way.",
    )
    s3_secret_key: str = _setting("", "The secret of `s3_access_key`.", secret=True)
    s3_virtual_host: bool = _setting(False, "The bucket is part of the host name, as AWS always has it, not of the path.")
    upload_max_bytes: Size = _setting(20 << 30, "Largest single upload.", least=1)
    url_expiry: Seconds = _setting(3600.0, "How long a signed URL is good for.", least=1)
    min_free_bytes: Size = _setting(1 << 30, "With less disk space than this, new runs are refused.", least=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """How tasks run."""

    python: str = _setting(
        "",
        "Interpreter of tasks, or its environment's directory. Empty: the active environment, else `.venv` or `venv` in the "
        "working directory, if the SDK is installed there, else the interpreter that runs the server.",
        flag="--python",
    )
    slots: int = _setting(0, "Tasks that compute at the same time. 0: the number of CPUs.", flag="--slots", least=0)
    warm: bool = _setting(True, "Fork tasks from an interpreter that has its imports done. Off: start each afresh.")
    process_watermark: int = _setting(
        64, "Above this many live task processes (waiting parents included) one is admitted at a time.", least=1
    )
    process_limit: int = _setting(512, "Live task processes at most; an action beyond fails.", least=1)
    memory_fraction: float = _setting(0.8, "Part of the machine's memory that tasks may request together.", least=0.01)
    system_retries: int = _setting(3, "Attempts repeated for faults that are not the task's own.", least=0)
    retry_backoff: Seconds = _setting(1.0, "Wait before the first repeated attempt, where a task sets none.", least=0)
    retry_backoff_factor: float = _setting(2.0, "What the wait is multiplied by for each further attempt.", least=1)
    retry_backoff_max: Seconds = _setting(60.0, "Longest wait between attempts.", least=0)
    kill_grace: Seconds = _setting(5.0, "Time between SIGTERM and SIGKILL when a task is aborted.", least=0)
    log_max_bytes: Size = _setting(64 << 20, "Output kept of one attempt; the middle of a longer one is lost.", least=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """Reuse of results."""

    reservation_heartbeat: Seconds = _setting(10.0, "How often the holder of a reservation renews it.", least=0.1)
    reservation_grace: float = _setting(3.0, "Heartbeats that may be missed before a reservation is free.", least=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Projects:
    """What exists at the first start."""

    seed: Strings = _setting(("flytesnacks",), "Projects created in an empty database.")
    domains: Strings = _setting(("development", "staging", "production"), "The domains of every project.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """The server's own log, on standard error. Tasks have theirs."""

    level: str = _setting("info", "Least level shown.", flag="--log-level", choices=("debug", "info", "warning", "error"))
    format: str = _setting("auto", "auto: console on a terminal, else json.", choices=("auto", "console", "json"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who a caller is taken for where nobody has to sign in."""

    name: str = _setting("", "Name shown as the owner of runs. Empty: the login name of the server's user.")
    email: str = _setting("", "Address shown with it.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The whole tree. ``sources`` says for each ``section.key`` that is not a default where its value is from."""

    server: Server = Server()
    data: Data = Data()
    database: Database = Database()
    storage: Storage = Storage()
    execution: Execution = Execution()
    cache: Cache = Cache()
    projects: Projects = Projects()
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

    def base_url(self, port: int) -> str:
        """Where clients reach a server that listens on ``port``, without a trailing slash."""
        host = "localhost" if self.server.host in LOOPBACK | _ANY else self.server.host
        return self.server.public_url.rstrip("/") or f"http://{f'[{host}]' if ':' in host else host}:{port}"

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
    "cache": Cache,
    "projects": Projects,
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

    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)
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
    except ValueError as error:
        raise SettingsError(f"{key} = {raw!r} (from {source}): {error}") from error
    if key in _PATHS and raw != "" and "://" not in str(value):
        value = type(value)((base or Path.cwd()) / Path(value).expanduser())
    return value


_PATHS = frozenset({"data.dir", "storage.root", "storage.bundles", "execution.python"})
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
    if not settings.projects.domains:
        raise SettingsError("projects.domains is empty: every run is in a domain")
