"""Google's and Azure's object stores for tests, each a process of its own on a free port, ended by its pid.

Azurite is Microsoft's own stand-in: it checks signatures, digests and conditions. Google has none that obstore can talk to, so
its dialect is put before moto (``tests.google_storage``). ``make test-stores`` installs Azurite, once, into the user's cache.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tests import s3_servers
from tests.s3_servers import BUCKET, serving

AZURITE = "3.35.0"
_CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "flyte-unified" / f"azurite-{AZURITE}"
_PROGRAM = _CACHE / "node_modules" / ".bin" / "azurite-blob"
_ACCOUNT = "storageaccount"
_KEY = base64.b64encode(b"a key of the storage account").decode()
_ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Server:
    """``scheme`` of its addresses; the variables by which obstore, ours and the SDK's, reaches it."""

    scheme: str
    environment: Mapping[str, str] = field(repr=False)


def missing() -> dict[str, str]:
    """The servers that cannot be had here, and why."""
    found: dict[str, str] = {}
    if "moto" in s3_servers.missing():
        found["google"] = s3_servers.missing()["moto"]
    if shutil.which("node") is None:
        found["azurite"] = "there is no node on PATH"
    elif not _PROGRAM.exists():
        found["azurite"] = "it is not installed: `make test-stores` does that"
    return found


def install() -> str:
    """Azurite, if it can be had; what came of it."""
    npm = shutil.which("npm")
    if _PROGRAM.exists() or npm is None:
        return "there is no npm on PATH: Azurite is left out" if npm is None else ""
    _CACHE.mkdir(parents=True, exist_ok=True)
    command = [npm, "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(_CACHE), f"azurite@{AZURITE}"]
    return "" if subprocess.run(command, check=False).returncode == 0 else "npm could not install Azurite: it is left out"


@contextmanager
def google(directory: Path) -> Iterator[Server]:
    """Everything is in its memory; ``directory`` takes a key. One bucket is made, ``BUCKET``."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = directory / "public.pem"
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with serving([sys.executable, "-m", "tests.google_storage", str(public)], cwd=_ROOT) as endpoint:
        urllib.request.urlopen(urllib.request.Request(f"{endpoint}/{BUCKET}", method="PUT")).close()
        account = {
            "type": "service_account",
            "client_email": "server@project.iam.gserviceaccount.com",
            "private_key": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
            "private_key_id": "1",
        }
        environment = {"GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(account), "GOOGLE_BASE_URL": endpoint}
        yield Server("gs", environment)


@contextmanager
def azurite(directory: Path) -> Iterator[Server]:
    """Keeps its files in ``directory``. One container is made, ``BUCKET``."""
    options = ("--blobHost", "127.0.0.1", "--blobPort", "0", "--location", str(directory), "--disableTelemetry")
    accounts = {**os.environ, "AZURITE_ACCOUNTS": f"{_ACCOUNT}:{_KEY}"}
    with serving([str(_PROGRAM), *options, "--skipApiVersionCheck"], env=accounts) as endpoint:
        _make_container(endpoint)
        environment = {
            "AZURE_STORAGE_ACCOUNT_NAME": _ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": _KEY,
            "AZURE_STORAGE_ENDPOINT": f"{endpoint}/{_ACCOUNT}",
        }
        yield Server("abfs", environment)


def _make_container(endpoint: str) -> None:
    """https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key"""
    headers = {"x-ms-date": datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT"), "x-ms-version": "2023-11-03"}
    told = [f"{name}:{value}" for name, value in headers.items()]
    text = "\n".join(["PUT", *[""] * 11, *told, f"/{_ACCOUNT}/{_ACCOUNT}/{BUCKET}", "restype:container"])
    signature = base64.b64encode(hmac.new(base64.b64decode(_KEY), text.encode(), hashlib.sha256).digest()).decode()
    headers["Authorization"] = f"SharedKey {_ACCOUNT}:{signature}"
    url = f"{endpoint}/{_ACCOUNT}/{BUCKET}?restype=container"
    urllib.request.urlopen(urllib.request.Request(url, method="PUT", headers=headers)).close()


if __name__ == "__main__":
    sys.stderr.write(install() + "\n" if not _PROGRAM.exists() else "")
