"""How apps are called: hosts below one of ours, each an origin of its own.

The first app of a name has it as its host, ``hello.localhost``; every app has the long one, ``hello.project.domain.localhost``,
which can be no other's. Browsers find every name below ``localhost``; other programs, on most machines, do not, so for them it
is below a path of the server's, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager
from ipaddress import ip_address
from urllib.parse import urlsplit

from flyte_unified.apps.model import App, AppKey
from flyte_unified.core.errors import NotFound
from flyte_unified.core.sites import Site, Upstream

PATH = "/_apps/"
CONNECTOR = "connector"
"""The type of an app that runs tasks of its own types (``flyte.app.ConnectorEnvironment``)."""
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class Addresses:
    """``base`` is the address below which they are, ``local`` the server's own for programs on this machine.

    ``reserved`` are hosts of the server below the base. A base that is an address of numbers has none below it, and is taken
    for ``localhost``.
    """

    def __init__(self, base: str, *, local: str, reserved: Iterable[str] = ()) -> None:
        parts = urlsplit(base)
        host = (parts.hostname or "localhost").lower()
        self._host = "localhost" if _is_number(host) else host
        self._scheme = parts.scheme
        self._port = f":{parts.port}" if parts.port is not None else ""
        self._local = local.rstrip("/")
        self._reserved = frozenset(name.lower() for name in reserved)

    def label(self, host: str) -> str | None:
        """What stands before the base in a Host header; None where that is not below it."""
        name = host.lower().rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host.lower()
        if not name.endswith(f".{self._host}") or name in self._reserved:
            return None
        return name[: -len(self._host) - 1]

    def url(self, app: App) -> str:
        return f"{self._scheme}://{app.host or _long(app.key)}.{self._host}{self._port}"

    def pattern(self, project: str, domain: str) -> str:
        """How apps and tasks of a domain reach its apps: an address with ``{app_fqdn}`` for the name."""
        if self._host == "localhost":
            return f"{self._local}{PATH}{project}/{domain}/{{app_fqdn}}"
        return f"{self._scheme}://{{app_fqdn}}.{project}.{domain}.{self._host}{self._port}".lower()

    def grpc(self, key: AppKey) -> str:
        """For clients that need not look a name up: whom to ask for, and where."""
        return f"{_long(key)}.{self._host}@{urlsplit(self._local).netloc}"

    @staticmethod
    def short(key: AppKey, subdomain: str) -> list[str]:
        """The short hosts that a new app would like to have, the first one best."""
        return [label for label in (subdomain.lower(), key.name.lower()) if _LABEL.fullmatch(label)]


class Directory:
    """Apps by how they are called: the edge's ``Sites``."""

    def __init__(self, addresses: Addresses, site: Callable[[AppKey], Site]) -> None:
        self._addresses = addresses
        self._site = site
        self._keys: set[AppKey] = set()
        self._by_label: dict[str, AppKey] = {}
        self._connectors: set[AppKey] = set()

    def put(self, app: App) -> None:
        self._keys.add(app.key)
        self._by_label.setdefault(_long(app.key), app.key)
        if app.host is not None:
            self._by_label[app.host] = app.key
        if app.spec.profile.type == CONNECTOR and not app.spec.cluster and app.wanted:
            self._connectors.add(app.key)
        else:
            self._connectors.discard(app.key)

    def remove(self, key: AppKey) -> None:
        for label in [label for label, known in self._by_label.items() if known == key]:
            del self._by_label[label]
        self._keys.discard(key)
        self._connectors.discard(key)

    def __iter__(self) -> Iterator[AppKey]:
        return iter(self._keys)

    def rival(self, key: AppKey) -> AppKey | None:
        """Another app that has the long host which ``key`` would have: hosts know no case, and projects may have dots."""
        known = self._by_label.get(_long(key))
        return known if known != key else None

    def connectors(self, project: str, domain: str) -> list[str]:
        """Addresses of the connectors among a domain's apps, as connectors' addresses are written."""
        return [self._addresses.grpc(key) for key in sorted(self._connectors) if key[:2] == (project, domain)]

    def find(self, label: str) -> AppKey | None:
        return self._by_label.get(label)

    def at(self, host: str) -> Site | None:
        label = self._addresses.label(host)
        if label is None:
            return None
        key = self._by_label.get(label)
        return self._site(key) if key is not None else _Nobody(f"there is no app at {host}")

    def below(self, path: str) -> tuple[Site, str] | None:
        if not path.startswith(PATH):
            return None
        project, _, rest = path[len(PATH) :].partition("/")
        domain, _, rest = rest.partition("/")
        name, _, rest = rest.partition("/")
        key = AppKey(project, domain, name)
        return (self._site(key) if key in self._keys else _Nobody(f"there is no app {key}")), f"/{rest}"


class _Nobody:
    """The site of no app."""

    def __init__(self, words: str) -> None:
        self._words = words

    def visit(self) -> AbstractAsyncContextManager[Upstream]:
        raise NotFound(self._words)


def _long(key: AppKey) -> str:
    return f"{key.name}.{key.project}.{key.domain}".lower()


def _is_number(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
