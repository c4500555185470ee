"""What ``flyte-unified doctor`` says of a bucket."""

from __future__ import annotations

import pytest

from flyte_unified.cli.doctor import data
from flyte_unified.cli.doctor.finding import Finding, Level, examined
from flyte_unified.settings import load
from tests.contract.storage.conftest import SERVERS, Servers
from tests.s3_servers import BUCKET, KEY, REGION, SECRET


async def findings(endpoint: str, **others: str) -> dict[str, Finding]:
    values = {"root": f"s3://{BUCKET}/a", "s3_endpoint": endpoint, "s3_region": REGION, "s3_access_key": KEY} | others
    flags = {f"storage.{name}": value for name, value in values.items()}
    checks = [check for check in data.CHECKS if check.subject == "objects"]
    return {finding.subject: finding for finding in await examined(checks, load(flags=flags))}


@pytest.mark.skipif("rclone" not in SERVERS, reason="no store that checks signatures")
async def test_a_bucket_is_tried(servers: Servers) -> None:
    """It is written, read and deleted, and its clock compared; a wrong key and another bucket are told with a mend."""
    endpoint = servers["rclone"].endpoint
    found = await findings(endpoint, s3_secret_key=SECRET)
    assert {subject: finding.level for subject, finding in found.items()} == {"objects": Level.OK, "clock": Level.OK}
    for others in ({"s3_secret_key": "wrong"}, {"s3_secret_key": SECRET, "root": "s3://another/a"}):
        (finding,) = (await findings(endpoint, **others)).values()
        assert (finding.level, bool(finding.mend)) == (Level.ERROR, True)
