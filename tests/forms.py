"""Documents held against their schemas, with nothing that the schema does not list."""

import copy
import json

from voxseg.schemas import read_schema


def parse(text):
    """Read JSON in which NaN and infinity, which only Python knows, are errors."""

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def check_document(content):
    """Check a document against the schema that it names; every field must be listed there."""
    if not isinstance(content, dict):
        content = parse(content)
    validator(content).validate(content)
    return content


def is_valid(content):
    return validator(content).is_valid(content)


def validator(content):
    # Only here: the tests of the kernels run where it is missing.
    from jsonschema import Draft202012Validator

    return Draft202012Validator(closed(read_schema(content["schema"])))


def closed(schema):
    """A schema that allows no field that it does not list."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: closed(value) for key, value in schema.items()}
    if isinstance(made.get("properties"), dict):
        made.setdefault("additionalProperties", False)
    return made


def damaged(content):
    """Copies of a document, each with one fault, and what the fault is.

    Of a list or of values under free names, the first stands for all.
    """
    schema = read_schema(content["schema"])
    for path, kind, part in _faults(schema, schema, content, ()):
        copied = copy.deepcopy(content)
        *above, last = path
        inner = copied
        for key in above:
            inner = inner[key]
        if kind == "lacks":
            del inner[last]
        else:
            # No field is of two kinds, so an object is wrong where none is, and a text elsewhere.
            inner[last] = "wrong" if isinstance(part, dict) else {"wrong": True}
        if kind == "has another type" and last == "schema" and not above:
            continue  # then nothing says which form it is
        yield copied, f"{'.'.join(map(str, path))} {kind}"


def _faults(schema, part, content, path):
    part = _resolved(schema, part, content)
    if isinstance(content, list) and content and isinstance(part.get("items"), dict):
        yield from _faults(schema, part["items"], content[0], (*path, 0))
    if not isinstance(content, dict):
        return
    for name in part.get("required", ()):
        if (*path, name) != ("schema",):
            yield (*path, name), "lacks", None
    free = part.get("additionalProperties")
    for name, value in content.items():
        known = part.get("properties", {}).get(name)
        if known is None:
            patterns = part.get("patternProperties", {})
            known = next(iter(patterns.values())) if patterns else free
        if known is None or not ({"type", "const", "$ref", "anyOf"} & set(known)):
            continue
        yield (*path, name), "has another type", value
        yield from _faults(schema, known, value, (*path, name))
        if known is free:
            break


def _resolved(schema, part, content):
    while "$ref" in part or "anyOf" in part:
        if "$ref" in part:
            part = schema["$defs"][part["$ref"].removeprefix("#/$defs/")]
        else:
            part = part["anyOf"][0 if content is not None else 1]
    return part
