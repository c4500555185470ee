"""What every DataStore does. Another adapter joins by one more name in ``STORES``."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flyte_unified.core.errors import InvalidArgument, NotFound, PermissionDenied, ResourceExhausted
from flyte_unified.storage.api import DataStore, checked_path, join


@pytest.fixture
async def place(make: Callable[[Path], DataStore], tmp_path: Path) -> AsyncIterator[tuple[DataStore, str]]:
    """A store and an address in it below which nothing exists yet."""
    store = make(tmp_path)
    await store.start()
    yield store, join(store.base("objects"), uuid.uuid4().hex)
    await store.stop()


async def _whole(store: DataStore, uri: str, *, start: int = 0, length: int | None = None) -> bytes:
    return b"".join([piece async for piece in store.read(uri, start=start, length=length)])


async def test_what_was_put_is_read_back(place: tuple[DataStore, str]) -> None:
    """Bytes come back as they went in, whole and streamed, and the store knows their size and digest."""
    store, base = place
    data = bytes(range(256)) * 17_000
    uri = join(base, "a/b/c.bin")
    assert await store.put(uri, data)
    info = await store.head(uri)
    assert info is not None
    assert (info.uri, info.size) == (uri, len(data))
    assert await store.get(uri) == data
    assert await _whole(store, uri) == data
    assert await store.md5(uri) == hashlib.md5(data).digest()


async def test_an_empty_object_is_an_object(place: tuple[DataStore, str]) -> None:
    """No bytes is not the same as no object."""
    store, base = place
    uri = join(base, "empty")
    assert await store.head(uri) is None
    await store.put(uri, b"")
    info = await store.head(uri)
    assert info is not None
    assert info.size == 0
    assert await store.get(uri) == b"" == await _whole(store, uri)


async def test_put_replaces_or_leaves(place: tuple[DataStore, str]) -> None:
    """Put replaces; with if_absent it leaves what is there and says so. The etag tells contents apart."""
    store, base = place
    uri = join(base, "object")
    assert await store.put(uri, b"first", if_absent=True)
    first = await store.head(uri)
    assert not await store.put(uri, b"other", if_absent=True)
    assert await store.get(uri) == b"first"
    assert await store.put(uri, b"second")
    assert await store.get(uri) == b"second"
    second = await store.head(uri)
    assert first is not None
    assert second is not None
    assert first.etag != second.etag


async def test_absence(place: tuple[DataStore, str]) -> None:
    """What is not there is NotFound to readers and signers, None to head, and nothing to delete."""
    store, base = place
    uri = join(base, "nothing/here")
    for attempt in (store.get(uri), store.md5(uri), _whole(store, uri)):
        with pytest.raises(NotFound):
            await attempt
    with pytest.raises(NotFound):
        await store.sign_download(uri, expires_in=60, base_url="http://localhost")
    assert await store.head(uri) is None
    await store.delete(uri)


async def test_delete(place: tuple[DataStore, str]) -> None:
    """A deleted object is gone, its neighbour is not."""
    store, base = place
    await store.put(join(base, "one"), b"1")
    await store.put(join(base, "two"), b"2")
    await store.delete(join(base, "one"))
    assert await store.head(join(base, "one")) is None
    assert await store.get(join(base, "two")) == b"2"


async def test_parts(place: tuple[DataStore, str]) -> None:
    """A part is read from its start for its length, and ends where the object ends."""
    store, base = place
    uri = join(base, "digits")
    await store.put(uri, b"0123456789")
    assert await _whole(store, uri, start=3, length=4) == b"3456"
    assert await _whole(store, uri, start=8) == b"89"
    assert await _whole(store, uri, start=8, length=50) == b"89"


async def test_a_bounded_read_refuses_more(place: tuple[DataStore, str]) -> None:
    """An object beyond the limit is refused, one of exactly the limit is not."""
    store, base = place
    uri = join(base, "object")
    await store.put(uri, b"12345")
    assert await store.get(uri, limit=5) == b"12345"
    with pytest.raises(ResourceExhausted, match="5 bytes"):
        await store.get(uri, limit=4)


@pytest.mark.parametrize("foreign", ["", "relative", "file:///etc/hostname", "/etc/hostname", "s3://elsewhere/x", "/"])
async def test_foreign_addresses(place: tuple[DataStore, str], foreign: str) -> None:
    """An address outside of the store is not owned, and is refused by every method."""
    store, _ = place
    assert not store.owns(foreign)
    with pytest.raises(PermissionDenied):
        await store.get(foreign)
    with pytest.raises(PermissionDenied):
        await store.put(foreign, b"")
    with pytest.raises(PermissionDenied):
        await store.head(foreign)
    with pytest.raises(PermissionDenied):
        await store.delete(foreign)
    with pytest.raises(PermissionDenied):
        await store.sign_upload(foreign, md5=b"\0" * 16, max_length=1, expires_in=1, base_url="http://localhost")


async def test_addresses_inside_are_owned(place: tuple[DataStore, str]) -> None:
    """An address inside is owned whether or not there is an object, and ``..`` does not lead out."""
    store, base = place
    assert store.owns(join(base, "x"))
    assert not store.owns(base + "/../../../x")


_NAMES = st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=4).map("/".join)


@given(path=_NAMES, data=st.binary(max_size=64))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_path_is_refused_or_stays_below_its_base(
    make: Callable[[Path], DataStore], tmp_path: Path, path: str, data: bytes
) -> None:
    """Whatever a client calls a file: InvalidArgument names the field, or it is stored below its base."""

    async def stored() -> None:
        store = make(tmp_path / uuid.uuid4().hex)
        try:
            await store.start()
            base = store.base("objects")
            uri = join(base, "top", path, field="filename")
            assert uri.startswith(base + "/top/")
            assert store.owns(uri)
            await store.put(uri, data)
            assert await store.get(uri) == data
        except InvalidArgument as error:
            assert error.message.startswith("filename")
        finally:
            await store.stop()

    asyncio.run(stored())


@pytest.mark.parametrize(
    "path",
    ["", "/", "/etc/passwd", "..", "../x", "a/../../x", "a//b", "a/", "./a", "a\0b", "a\nb", "\x7f", "\ud800", "x" * 256],
)
def test_paths_that_lead_elsewhere(path: str) -> None:
    """Absolute paths, dots, empty parts, control characters, surrogates and names too long for a disk are refused."""
    with pytest.raises(InvalidArgument, match=r"^filename"):
        checked_path(path, field="filename")


@pytest.mark.parametrize(
    "path", ["fast0a.tar.gz", "with space (1).csv", "données/日本.txt", "...", "a\\b", "x" * 255, "%2e%2e/x"]
)
def test_ordinary_paths(path: str) -> None:
    """Everything else is a name, spaces, percent signs and other scripts included."""
    assert checked_path(path, field="filename") == path
