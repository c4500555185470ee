"""How apps are called."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import replace

import pytest

from flyte_unified.apps.addresses import Addresses, Directory
from flyte_unified.apps.model import App, AppKey
from flyte_unified.core.errors import NotFound
from flyte_unified.core.sites import Upstream
from tests.unit.apps.machine import app

LOCAL = "http://localhost:30080"


class Place:
    """The site of one app."""

    def __init__(self, key: AppKey) -> None:
        self.key = key

    def visit(self) -> AbstractAsyncContextManager[Upstream]:
        raise NotImplementedError


def of(key: AppKey, host: str | None) -> App:
    return replace(app(), key=key, host=host)


def directory(base: str = LOCAL, *, reserved: tuple[str, ...] = ()) -> Directory:
    there = Directory(Addresses(base, local=LOCAL, reserved=reserved), Place)
    there.put(of(AppKey("p", "d", "hello"), "hello"))
    there.put(of(AppKey("Other.One", "d", "hello"), None))
    return there


@pytest.mark.parametrize(
    ("host", "found"),
    [
        ("hello.localhost:30080", "p/d/hello"),
        ("HELLO.localhost", "p/d/hello"),
        ("hello.p.d.localhost", "p/d/hello"),
        ("hello.other.one.d.localhost:1", "Other.One/d/hello"),
    ],
)
def test_an_app_has_a_short_host_and_a_long_one(host: str, found: str) -> None:
    """In any case, with or without a port."""
    site = directory().at(host)
    assert isinstance(site, Place)
    assert str(site.key) == found


@pytest.mark.parametrize(
    "host", ["localhost:30080", "localhost", "127.0.0.1:30080", "[::1]:30080", "example.org", "", "xlocalhost"]
)
def test_the_servers_own_hosts_are_no_apps(host: str) -> None:
    """So the API is to be had there alone."""
    assert directory().at(host) is None


def test_what_is_below_and_no_app_is_nothing_of_the_servers_either() -> None:
    """A page of an app that is gone must not find the API under its old host; a host that is named as the server's is."""
    there = directory(reserved=("api.localhost",))
    assert there.at("api.localhost:30080") is None
    site = there.at("gone.localhost")
    assert site is not None
    with pytest.raises(NotFound, match=r"there is no app at gone\.localhost"):
        site.visit()


def test_an_app_that_is_gone_has_no_host_any_more() -> None:
    """Neither the short one nor the long one."""
    there = directory()
    there.remove(AppKey("p", "d", "hello"))
    assert there.find("hello") is there.find("hello.p.d") is None


def test_programs_find_apps_below_a_path() -> None:
    """Most machines look up no names below localhost; the pattern is what the SDK puts an app's name into."""
    there = directory()
    found = there.below("/_apps/p/d/hello/a/b")
    assert found is not None
    site, path = found
    assert isinstance(site, Place)
    assert (site.key.name, path) == ("hello", "/a/b")
    assert there.below("/runs") is None
    pattern = Addresses(LOCAL, local=LOCAL).pattern("p", "d")
    assert pattern.format(app_fqdn="hello") == f"{LOCAL}/_apps/p/d/hello"


def test_addresses_of_a_domain_of_ones_own() -> None:
    """Where names can be looked up they are used."""
    addresses = Addresses("https://apps.example.org", local=LOCAL)
    assert addresses.url(of(AppKey("p", "d", "hello"), "hello")) == "https://hello.apps.example.org"
    assert addresses.url(of(AppKey("p", "d", "hello"), None)) == "https://hello.p.d.apps.example.org"
    assert addresses.pattern("p", "d").format(app_fqdn="x") == "https://x.p.d.apps.example.org"
    assert addresses.label("hello.apps.example.org") == "hello"
    assert addresses.label("hello.localhost") is None
    numbers = Addresses("http://192.0.2.7:30080", local=LOCAL)
    assert numbers.url(of(AppKey("p", "d", "hello"), "hello")) == "http://hello.localhost:30080"


def test_a_subdomain_that_is_asked_for_comes_first() -> None:
    """If it can be one."""
    key = AppKey("p", "d", "Hello")
    assert Addresses.short(key, "my-hello") == ["my-hello", "hello"]
    assert Addresses.short(key, "not.one") == ["hello"]


def test_connectors_are_found_by_their_domain() -> None:
    """Those that are wanted, at the server's own port, under their long name."""
    there = directory()
    connector = of(AppKey("p", "d", "farm"), "farm")
    connector.spec.profile.type = "connector"
    there.put(connector)
    assert there.connectors("p", "d") == ["farm.p.d.localhost@localhost:30080"]
    assert there.connectors("p", "other") == []
    there.remove(connector.key)
    assert there.connectors("p", "d") == []


@pytest.mark.parametrize(("first", "second"), [(("b", "c.d"), ("b.c", "d")), (("p", "d"), ("P", "d"))])
def test_an_app_takes_no_host_of_another(first: tuple[str, str], second: tuple[str, str]) -> None:
    """Hosts know no case, and projects may have dots: the first has the host, and either is below its own path."""
    there = Directory(Addresses(LOCAL, local=LOCAL), Place)
    keys = [AppKey(*scope, "hello") for scope in (first, second)]
    for key in keys:
        there.put(of(key, None))
    assert [_site(there.at(".".join(("hello", *key[:2], "localhost")))) for key in keys] == [keys[0]] * 2
    assert [_site(there.below(f"/_apps/{key.project}/{key.domain}/hello/")) for key in keys] == keys
    there.remove(keys[1])
    assert _site(there.at(".".join(("hello", *first, "localhost")))) == keys[0]
    assert set(there) == {keys[0]}


def _site(found: object) -> AppKey:
    site = found[0] if isinstance(found, tuple) else found
    assert isinstance(site, Place)
    return site.key
