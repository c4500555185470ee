"""URLs for S3, signed."""

from __future__ import annotations

from datetime import UTC, datetime

from flyte_unified.core.clock import SECOND, Micros
from flyte_unified.storage.sigv4 import Keys, presigned

URL = "https://examplebucket.s3.amazonaws.com/test.txt"
KEYS = Keys("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
NOW = Micros(int(datetime(2013, 5, 24, tzinfo=UTC).timestamp()) * SECOND)


def test_the_example_of_the_documentation() -> None:
    """AWS prints one request with its signature."""
    assert presigned("GET", URL, keys=KEYS, region="us-east-1", expires=86400, now=NOW) == (
        f"{URL}?X-Amz-Algorithm=AWS4-HMAC-SHA256"
        "&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request"
        "&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
        "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    )


def test_a_token_and_headers_are_part_of_the_url() -> None:
    """Temporary credentials bring their token along; the names of signed headers are told."""
    keys = Keys(KEYS.access, KEYS.secret, "to/ken+=")
    url = presigned("PUT", URL, keys=keys, region="r", expires=1, now=NOW, headers={"Content-MD5": "abc=="})
    assert "&X-Amz-Security-Token=to%2Fken%2B%3D&" in url
    assert "&X-Amz-SignedHeaders=content-md5%3Bhost&" in url


def test_keys_are_not_shown() -> None:
    """Neither the secret nor the token stands in a log."""
    assert repr(Keys("id", "secret", "token")) == "Keys(access='id')"
