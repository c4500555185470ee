"""The SDK's own type engine as the judge: what it writes, a form holds, and what a form gives, it reads."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import typing
import warnings
from typing import Any

import pytest
from flyteidl2.core.literals_pb2 import Literal
from flyteidl2.core.types_pb2 import LiteralType
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct
from pydantic import BaseModel

from flyte_unified.dataproxy.translator.forms import form_of_literals, literals_of_form, literals_of_values
from tests.unit.translator.samples import named, struct, variables

with warnings.catch_warnings():  # the SDK defines its models in a way that pydantic has deprecated
    warnings.simplefilter("ignore", DeprecationWarning)
    from flyte.io import DataFrame, Dir, File
    from flyte.types import TypeEngine


class Gait(enum.Enum):
    WALK = "w"
    TROT = "t"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dataclasses.dataclass
class Hoof:
    size: int
    angle: float | None = None


@dataclasses.dataclass
class Horse:
    name: str
    height: float
    hooves: list[Hoof]
    wins: dict[str, int]
    born: datetime.datetime
    rest: datetime.timedelta
    gait: Gait = Gait.WALK
    chart: File | None = None


class Rider(BaseModel):
    name: str
    horse: Hoof | None = None
    since: datetime.datetime
    laps: dict[str, list[float]]
    pause: datetime.timedelta = datetime.timedelta(minutes=3)
    gait: Gait = Gait.TROT
    number: int | str = 7


class Stable(typing.NamedTuple):
    boxes: int
    street: str


class Feed(typing.TypedDict):
    oats: int
    note: str


UTC = datetime.UTC
BORN = datetime.datetime(2019, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
HORSE = Horse("Ajax", 16.0, [Hoof(12), Hoof(13, 48.5)], {"cup": 2**60}, BORN, datetime.timedelta(hours=1, microseconds=3))
RIDER = Rider(name="Ann", horse=Hoof(9, 1.0), since=BORN, laps={"one": [1.0, 2.5]})

CASES: list[tuple[Any, Any]] = [
    (int, 2**63 - 1),
    (int, -5),
    (float, 2.0),
    (float, float("inf")),
    (str, "2020-01-01"),
    (bool, False),
    (Gait, Gait.TROT),
    (Level, Level.HIGH),
    (datetime.datetime, BORN),
    (datetime.date, datetime.date(2001, 2, 3)),
    (datetime.timedelta, datetime.timedelta(days=-2, microseconds=7)),
    (type(None), None),
    (Horse, HORSE),
    (Rider, RIDER),
    (Stable, Stable(4, "Lane")),
    (Feed, {"oats": 3, "note": "wet"}),
    (tuple[int, str], (1, "a")),
    (list[int], [1, 2**60, 3]),
    (list[Horse], [HORSE]),
    (list[Hoof | None], [Hoof(1), None]),
    (list[int | str], [1, "1", "x"]),
    (dict[str, float], {"a": 1.0, "b/c": 2.5}),
    (dict[str, list[Rider]], {"all": [RIDER]}),
    (dict[int, str], {1: "a", -2: "b"}),
    (dict[str, Any], {"deep": {"n": [1, 2.5, None, True]}}),
    (dict, {"a": 1, "b": "c"}),
    (typing.Optional[int], None),  # noqa: UP045  as users write it
    (typing.Optional[int], 2**60),  # noqa: UP045
    (typing.Optional[Horse], HORSE),  # noqa: UP045
    (typing.Union[int, float, str], 3.0),  # noqa: UP007
    (typing.Union[int, float, str], "3"),  # noqa: UP007
    (typing.Union[str, datetime.datetime], BORN),  # noqa: UP007
    (typing.Union[Hoof, Horse], HORSE),  # noqa: UP007
    (typing.Union[Hoof, Rider], RIDER),  # noqa: UP007
    (typing.Union[File, Dir], Dir(path="s3://herd/all")),  # noqa: UP007
    (File, File(path="s3://herd/one.csv", format="csv", hash="abc")),
    (Dir, Dir(path="s3://herd/all")),
    (list[File], [File(path="s3://herd/one.csv")]),
    (File | None, None),
    (bytes, b"\x00\xff"),
    (set, {1, 2}),
    (typing.Any, [1, "two"]),
    (typing.Any | None, 5),
]


def plain(value: Any) -> Any:
    """Files compare by where they are."""
    if isinstance(value, File | Dir):
        return type(value), value.path, value.format
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


async def written(type_: Any, value: Any) -> tuple[LiteralType, Literal]:
    declared = TypeEngine.to_literal_type(type_)
    return declared, await TypeEngine.to_literal(value, type_, declared)


def over_json(form: Struct) -> Struct:
    return json_format.Parse(json_format.MessageToJson(form), Struct())


@pytest.mark.parametrize(("type_", "value"), CASES, ids=[f"{type_}-{index}" for index, (type_, _) in enumerate(CASES)])
async def test_a_form_keeps_what_the_sdk_wrote(type_: Any, value: Any) -> None:
    """Untouched, a form gives the SDK's literal back byte for byte, which keeps cache keys, and it reads as the value."""
    declared, literal = await written(type_, value)
    form = over_json(form_of_literals(named(x=literal), variables(x=declared)))
    (back,) = literals_of_form(form)
    assert back.value == literal
    assert plain(await TypeEngine.to_python_value(back.value, type_)) == plain(value)


_TYPED = [
    (int, 41, 41),
    (int, "9007199254740993", 2**53 + 1),
    (float, 2, 2.0),
    (datetime.datetime, "2019-05-06T07:08:09.123456Z", BORN),
    (datetime.datetime, "2019-05-06 07:08", datetime.datetime(2019, 5, 6, 7, 8, tzinfo=UTC)),
    (datetime.timedelta, "1h30m", datetime.timedelta(minutes=90)),
    (datetime.timedelta, "P1DT1.5S", datetime.timedelta(days=1, seconds=1.5)),
    (datetime.timedelta, 90, datetime.timedelta(seconds=90)),
    (Gait, "WALK", Gait.WALK),
    (Hoof, {"size": 3}, Hoof(3)),
    (Hoof, {"size": 3, "angle": 4}, Hoof(3, 4.0)),
    (typing.Union[Hoof, Stable], {"boxes": 1, "street": "S"}, Stable(1, "S")),  # noqa: UP007
    (typing.Union[int, str], "5", "5"),  # noqa: UP007
    (list[Hoof | None], [None, {"size": 1, "angle": None}], [None, Hoof(1)]),
    (dict[int, str], {"1": "one"}, {1: "one"}),
    (dict, {"n": 1, "f": 1.5}, {"n": 1, "f": 1.5}),
    (Stable, {"boxes": 2, "street": "S"}, Stable(2, "S")),
    (File, "s3://herd/one.csv", File(path="s3://herd/one.csv")),
    (Dir, {"uri": "s3://herd/all"}, Dir(path="s3://herd/all")),
]


@pytest.mark.parametrize(("type_", "given", "expected"), _TYPED)
async def test_what_people_type_is_what_the_sdk_reads(type_: Any, given: Any, expected: Any) -> None:
    """Values, typed against the interface, arrive in the task as its own types."""
    (literal,) = literals_of_values(struct({"x": given}), variables(x=TypeEngine.to_literal_type(type_)))
    assert plain(await TypeEngine.to_python_value(literal.value, type_)) == plain(expected)


@pytest.mark.parametrize("value", [HORSE, RIDER], ids=["dataclass", "pydantic"])
async def test_an_edited_class_is_read_by_the_sdk(value: Any) -> None:
    """One field of a form's object is changed: the SDK reads the object with that change alone."""
    declared, literal = await written(type(value), value)
    form = over_json(form_of_literals(named(x=literal), variables(x=declared)))
    form["properties"]["x"]["default"]["name"] = "Zoe"
    (back,) = literals_of_form(form)
    read = await TypeEngine.to_python_value(back.value, type(value))
    expected = dataclasses.replace(value, name="Zoe") if isinstance(value, Horse) else value.model_copy(update={"name": "Zoe"})
    assert read == expected


async def test_a_dataframe_keeps_its_columns() -> None:
    """A structured dataset's form has its place and format; its columns come back with it."""
    declared = TypeEngine.to_literal_type(DataFrame)
    literal = Literal(
        scalar={
            "structured_dataset": {
                "uri": "s3://herd/table",
                "metadata": {
                    "structured_dataset_type": {
                        "format": "parquet",
                        "columns": [{"name": "id", "literal_type": TypeEngine.to_literal_type(int)}],
                    }
                },
            }
        }
    )
    form = over_json(form_of_literals(named(x=literal), variables(x=declared)))
    assert dict(form["properties"]["x"]["default"]) == {"uri": "s3://herd/table", "format": "parquet"}
    assert literals_of_form(form)[0].value == literal
