"""The settings written out: ``flyte.yaml`` with every default, and the page in the documentation."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from inspect import getdoc
from pathlib import Path

from flyte_unified.settings import FIELDS, KEYS, SECTIONS, variable, written

_HEAD = """\
# The settings of flyte-unified, each with its default. Take the `#` away to change one.
# Durations are written as 500ms, 30s, 5m, 1h or 2d, sizes as 64KiB, 64MiB or 1GB.
# The environment (FLYTE_UNIFIED_<SECTION>_<KEY>) wins over this file, and flags win over both.
# `flyte-unified config show` prints what holds and where it is from.
"""

_PAGE = """\
# Settings

<!-- Generated from flyte_unified/settings by `make generate`. -->

A setting has its default, unless `flyte.yaml` changes it, unless the environment does, unless a flag does.
`flyte-unified config show` prints every value and where it is from. The file is the one named by `--config`, else
`$FLYTE_UNIFIED_CONFIG`, else `./flyte.yaml`, else `~/.flyte-unified/flyte.yaml`; relative paths in it start at its
directory. A key that does not exist is an error that names the nearest one that does.

Durations are numbers of seconds or `500ms`, `30s`, `5m`, `1h`, `2d`; sizes are bytes or `64KiB`, `64MiB`, `1GB`. Lists
are YAML lists, or text with commas.
"""


def template() -> str:
    """``flyte.yaml`` with every key commented out."""
    lines = [_HEAD]
    for section, keys in _sections():
        lines.append(f"\n{section}:  # {_summary(section)}\n")
        for key in keys:
            comment = textwrap.wrap(_described(key), 116, break_long_words=False, break_on_hyphens=False)
            lines += [f"  # {line}\n" for line in comment]
            lines.append(f"  # {KEYS[key][1]}: {written(key, FIELDS[key].default)}\n")
    return "".join(lines)


def page() -> str:
    """``docs/settings.md``."""
    lines = [_PAGE]
    for section, keys in _sections():
        lines.append(f"\n## {section}\n\n{_summary(section)}\n\n| setting | default | meaning |\n|---|---|---|\n")
        for key in keys:
            flag = FIELDS[key].metadata["flag"]
            names = f"`{key}`<br>`{variable(key)}`" + (f"<br>`{flag}`" if flag else "")
            lines.append(f"| {names} | `{written(key, FIELDS[key].default)}` | {_described(key)} |\n")
    return "".join(lines)


def _sections() -> Iterator[tuple[str, list[str]]]:
    for section in SECTIONS:
        yield section, [key for key in FIELDS if KEYS[key][0] == section]


def _summary(section: str) -> str:
    return (getdoc(SECTIONS[section]) or "").splitlines()[0]


def _described(key: str) -> str:
    doc, choices = FIELDS[key].metadata["doc"], FIELDS[key].metadata["choices"]
    return f"{doc} One of {', '.join(choices)}." if choices else str(doc)


if __name__ == "__main__":
    root = Path(__file__).parents[2]
    (root / "flyte.yaml").write_text(template())
    (root / "docs" / "settings.md").write_text(page())
