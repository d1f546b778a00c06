"""The schemas themselves: valid, named once, and described field by field."""

import re
import tomllib
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from voxseg import schemas
from voxseg.schemas import read_schema, schema_names

from .forms import parse

ROOT = Path(__file__).parents[1]
FOLDER = Path(schemas.__file__).parent
CONSTANTS = {
    name: value for name, value in vars(schemas).items() if name[0].isupper() and name.isupper()
}


def parts(schema):
    """Every subschema that stands for a field or a value."""
    for key in ("properties", "patternProperties", "$defs"):
        for name, part in schema.get(key, {}).items():
            yield name, part, key
            yield from parts(part)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from parts(schema[key])


@pytest.mark.parametrize("name", schema_names())
def test_schema_is_valid_and_says_what_it_is(name):
    schema = read_schema(name)
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert re.fullmatch(rf"voxseg\.{name}/\d+", schema["$id"])
    assert schema["title"]
    assert schema["$comment"].startswith("written by ")
    assert schema["description"].endswith(".")
    assert schema["properties"]["schema"]["const"] == schema["$id"]
    assert "schema" in schema["required"]


@pytest.mark.parametrize("name", schema_names())
def test_every_field_is_described_and_none_forbidden(name):
    schema = read_schema(name)
    for field, part, place in parts(schema):
        if place != "$defs":
            assert part.get("description") or "$ref" in part, field
        assert part.get("additionalProperties") is not False, field
        assert set(part.get("required", ())) <= set(part.get("properties", {})), field
    assert schema.get("additionalProperties") is not False


@pytest.mark.parametrize("name", schema_names())
def test_fields_with_a_unit_in_their_name_have_it_in_their_description(name):
    units = {"_mm": "mm", "_ml": "ml", "_gb": "GB", "seconds": "s"}
    for field, part, place in parts(read_schema(name)):
        for ending, unit in units.items():
            if place == "properties" and field.endswith(ending):
                assert re.search(rf"\b{unit}\b", part["description"]), field


def test_every_schema_has_one_constant():
    assert sorted(CONSTANTS.values()) == sorted(read_schema(name)["$id"] for name in schema_names())


def test_no_other_file_spells_a_schema_name():
    names = re.compile(r"[\"']voxseg\.[a-z-]+/\d+[\"']")
    files = [*(ROOT / "voxseg").rglob("*.py"), *(ROOT / "cli").rglob("*.py")]
    found = [path for path in files if names.search(path.read_text(encoding="utf-8"))]
    assert found == [FOLDER / "__init__.py"]


def test_definitions_of_one_name_are_the_same_everywhere():
    known = {}
    for name in schema_names():
        for part, content in read_schema(name).get("$defs", {}).items():
            assert known.setdefault(part, content) == content, (name, part)


@pytest.mark.parametrize(
    ("outer", "inner"), [("metrics", "seeds"), ("demo", "metrics"), ("gpu", "bench")]
)
def test_a_form_within_another_is_the_same(outer, inner):
    within, alone = read_schema(outer)["$defs"][inner], read_schema(inner)
    for field, part in within["properties"].items():
        assert alone["properties"][field] == part, field
    assert within["required"] == alone["required"]


def test_a_schema_is_read_by_short_and_by_whole_name():
    assert read_schema("split") == read_schema("voxseg.split") == read_schema(schemas.SPLIT)
    with pytest.raises(ValueError, match="there is no schema 'spilt'"):
        read_schema("spilt")
    with pytest.raises(ValueError, match=r"this version has voxseg\.split/1"):
        read_schema("voxseg.split/2")


def test_schemas_are_packaged():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert settings["package-data"]["voxseg.schemas"] == ["*.json"]


@pytest.mark.parametrize(
    "path", sorted((ROOT / "benchmarks" / "results").glob("*.json")), ids=lambda path: path.name
)
def test_kept_benchmarks_fit(path, validate):
    validate(path.read_text(encoding="utf-8"))


def test_strict_reading_refuses_nan():
    with pytest.raises(AssertionError, match="NaN is no JSON"):
        parse('{"a": NaN}')
