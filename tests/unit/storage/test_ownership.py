"""Which addresses a local store takes for its own, asked once and asked again."""

from __future__ import annotations

from pathlib import Path

from flyte_unified.core.clock import SystemClock
from flyte_unified.storage.local import LocalStore
from flyte_unified.storage.signing import Signer


def test_a_remembered_directory_lets_nothing_else_in(tmp_path: Path) -> None:
    """What was found out of one address is used for its neighbours only: not above the root, and not behind a link."""
    root = tmp_path / "root"
    store = LocalStore({"data": root}, signer=Signer(b"k" * 32), clock=SystemClock())
    for inside in (f"{root}/x", f"{root}/run/child/inputs.pb", f"{root}/run/other/inputs.pb", f"{root}/run/x"):
        assert store.owns(inside)
        assert store.owns(inside)
    (root / "run").mkdir()
    (root / "run" / "link").symlink_to(tmp_path)
    (root / "run" / "child").mkdir()
    (root / "run" / "child" / "inputs.pb").symlink_to("/etc/hostname")
    outside = (
        str(root),
        f"{tmp_path}/other",
        f"{tmp_path}/other/inputs.pb",
        f"{root}/run/../../other",
        f"{root}/run/child/../../../other",
        f"{root}/run/link/inputs.pb",
        f"{root}/run/child/inputs.pb",
    )
    for uri in outside:
        assert not store.owns(uri), uri
