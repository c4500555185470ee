"""What holds at a scope, from what is set there and above (flyteidl2/settings/settings_definition.proto). Pure.

Which settings there are is the IDL's to say: a setting is any message with a state, so a new one needs no word here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from flyteidl2.settings import settings_definition_pb2 as idl
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

ORG, DOMAIN, PROJECT = idl.SCOPE_LEVEL_ORG, idl.SCOPE_LEVEL_DOMAIN, idl.SCOPE_LEVEL_PROJECT
VALUE, UNSET, INHERIT = idl.SETTING_STATE_VALUE, idl.SETTING_STATE_UNSET, idl.SETTING_STATE_INHERIT


def resolved(levels: Iterable[tuple[int, idl.Settings]]) -> idl.Settings:
    """Every setting that a level sets, with the level that it is from; ``levels`` from the widest to the narrowest.

    Entries of maps add up, down to a level that unsets the map.
    """
    result = idl.Settings()
    for level, settings in levels:
        _lay(settings, result, level)
    return result


def leaves(settings: Message, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The settings that are there, by their names with dots."""
    for field, value in settings.ListFields():
        if field.message_type is None:
            continue
        name = f"{prefix}{field.name}"
        if is_leaf(field.message_type):
            yield name, value
        else:
            yield from leaves(value, f"{name}.")


def is_leaf(kind: Descriptor) -> bool:
    return "state" in kind.fields_by_name


def _lay(above: Message, result: Message, level: int) -> None:
    for field, value in above.ListFields():
        if field.message_type is None:
            continue
        present = getattr(result, field.name)
        if not is_leaf(field.message_type):
            _lay(value, present, level)
        elif value.state != INHERIT:
            entries = dict(present.map_value.entries) if "map_value" in field.message_type.fields_by_name else {}
            present.CopyFrom(value)
            present.scope_level = level
            if value.state == VALUE:
                for name, entry in entries.items():
                    if name not in present.map_value.entries:
                        present.map_value.entries[name] = entry
