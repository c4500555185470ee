"""A signed URL grants exactly one thing, and no other URL does."""

from __future__ import annotations

import base64
import string
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyte_unified.core.clock import SECOND, Micros
from flyte_unified.core.errors import FailedPrecondition, PermissionDenied
from flyte_unified.storage.signing import PREFIX, Grant, Signer, load_key, read_key

_NOW = Micros(1_700_000_000 * SECOND)
_SIGNER = Signer(b"s" * 32)
_GRANTS = st.builds(
    Grant,
    method=st.sampled_from(["PUT", "GET"]),
    key=st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"]), min_size=1, max_size=40),
    expires=st.integers(1_700_000_001, 1_700_003_600),
    md5=st.binary(min_size=16, max_size=16).map(bytes.hex),
    max_length=st.integers(0, 2**40),
    replace=st.booleans(),
)


def _parsed(url: str) -> tuple[str, dict[str, str]]:
    parts = urlsplit(url)
    return unquote(parts.path).removeprefix(PREFIX), dict(parse_qsl(parts.query, keep_blank_values=True))


@given(grant=_GRANTS)
def test_a_url_carries_its_grant(grant: Grant) -> None:
    """What was granted is what is read from the URL, whatever characters the key has."""
    key, query = _parsed(_SIGNER.url(grant, "http://localhost:30080/"))
    assert _SIGNER.grant(key, query, _NOW) == grant


@given(grant=_GRANTS, data=st.data())
def test_any_altered_character_is_refused(grant: Grant, data: st.DataObject) -> None:
    """One other character in the key or in any value of the query, the signature included, and the URL grants nothing."""
    key, query = _parsed(_SIGNER.url(grant, "http://localhost"))
    told = {"key": key, **query}
    name = data.draw(st.sampled_from([name for name, value in told.items() if value]))
    at = data.draw(st.integers(0, len(told[name]) - 1))
    other = data.draw(st.sampled_from(string.printable).filter(lambda character: character != told[name][at]))
    told[name] = told[name][:at] + other + told[name][at + 1 :]
    with pytest.raises(PermissionDenied, match="altered"):
        _SIGNER.grant(told.pop("key"), told, _NOW)


@given(grant=_GRANTS, data=st.data())
def test_text_moved_between_fields_is_refused(grant: Grant, data: st.DataObject) -> None:
    """Text cut from the end of one field and put before the next does not give the same signature."""
    key, query = _parsed(_SIGNER.url(grant, "http://localhost"))
    told = {"key": key, **query}
    names = list(told)
    index = data.draw(st.integers(0, len(names) - 2))
    count = data.draw(st.integers(1, max(1, len(told[names[index]]))))
    one, two = told[names[index]], told[names[index + 1]]
    told[names[index]], told[names[index + 1]] = one[:-count], one[-count:] + two
    with pytest.raises(PermissionDenied, match="altered"):
        _SIGNER.grant(told.pop("key"), told, _NOW)


def test_another_key_signs_other_urls() -> None:
    """A URL of another server, with another key, is refused."""
    key, query = _parsed(Signer(b"t" * 32).url(Grant("GET", "objects/x", 1_700_000_100), "http://localhost"))
    with pytest.raises(PermissionDenied, match="altered"):
        _SIGNER.grant(key, query, _NOW)


def test_a_url_ends_with_its_expiry() -> None:
    """Valid until the second it names, and not at it; the refusal names the time and says what to do."""
    grant = Grant("GET", "objects/x", 1_700_000_100)
    key, query = _parsed(_SIGNER.url(grant, "http://localhost"))
    assert _SIGNER.grant(key, query, Micros(1_700_000_100 * SECOND - 1)) == grant
    with pytest.raises(PermissionDenied, match=r"expired.*2023-11-14T22:15:00Z.*new one"):
        _SIGNER.grant(key, query, Micros(1_700_000_100 * SECOND))


def test_a_query_without_signature() -> None:
    """Nothing signed, nothing granted; a signature of strange characters is no fault of ours either."""
    with pytest.raises(PermissionDenied):
        _SIGNER.grant("objects/x", {}, _NOW)
    with pytest.raises(PermissionDenied):
        _SIGNER.grant("objects/\ud800", {"signature": "é\udcff"}, _NOW)


def test_the_key_file_is_made_once(tmp_path: Path) -> None:
    """The first start makes 32 random bytes that only the owner reads; later ones find them, and close a file left open."""
    path = tmp_path / "data" / "signing.key"
    key = load_key(path)
    assert len(key) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    assert load_key(path) == key
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["signing.key"]
    assert load_key(tmp_path / "other.key") != key


def test_a_damaged_key_file_is_named(tmp_path: Path) -> None:
    """A truncated key is refused by name: signing with it would be guessable."""
    path = tmp_path / "signing.key"
    path.write_bytes(b"short")
    with pytest.raises(FailedPrecondition, match=r"signing\.key"):
        load_key(path)


def test_a_key_may_come_from_the_settings() -> None:
    """In base64, as replicas share it; what is too short is refused with the command that makes one."""
    assert read_key(base64.b64encode(bytes(range(32))).decode()) == bytes(range(32))
    for text in ("c2hvcnQ=", "not base64!"):
        with pytest.raises(FailedPrecondition, match="openssl rand"):
            read_key(text)
