"""JSON Schema of architecture files, so that an editor completes keys and marks mistakes as they are typed.

It is written from the config classes of the installed components, so it knows the parts of strangers too.
Every component appears twice: `whole`, as a file without `extends` needs it, and `partial`, where nothing is
required. What no schema can say (a patch that divides the image) is left to `zoo validate`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from zoo_core.plugin import KINDS, Kind
from zoo_core.registry import Component, Registry

__all__ = ["architecture_schema"]

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
PLACEHOLDER = "x-zoo-kind"
"""Where `zoo_core.config.Section` says that a component of a kind belongs."""
REFERENCE: Schema = {
    "type": "string",
    "pattern": r"^\$\{[^${}:]+\}$",
    "description": "The value of another key.",
}

_EXTENDS: Schema = {
    "type": "string",
    "description": "Another architecture, or a YAML file beside this one, whose keys this one takes over.",
}
_MAPPINGS = ("$defs", "properties", "patternProperties")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLES = ("items", "additionalProperties")
_NUMBERS = {"integer", "number", "boolean"}
NO_PARTS = ("loss", "checkpoint-format")
"""Kinds that are no part of an architecture."""
_NARROWINGS = {"enum", "const", "pattern", "format", "minLength", "maxLength"}


def architecture_schema(registry: Registry) -> Schema:
    """Return the JSON Schema (draft 2020-12) of an architecture file.

    A component whose config cannot be imported or told as a schema is left out; `$comment` names it and why.
    """
    definitions: Schema = {}
    left_out: list[str] = []
    for component in registry.components():
        if component.spec.kind in NO_PARTS:
            continue
        try:
            whole, partial = (_component_schema(component, variant) for variant in ("whole", "partial"))
        except Exception as error:  # a stranger's config class may raise anything; the others' schema must not suffer
            left_out.append(f"{component}: {' '.join(str(error).split())}")
            continue
        definitions |= {_key(component, "whole"): whole, _key(component, "partial"): partial}
    for variant in ("whole", "partial"):
        for kind in (one for one in KINDS if one not in NO_PARTS):
            definitions[f"{variant}:{kind}"] = _union(definitions, f"{variant}:{kind}:")
    return {
        "$schema": DIALECT,
        "title": "zoo architecture",
        "type": "object",
        "if": {"required": ["extends"]},
        "then": {"$ref": "#/$defs/partial:model"},
        "else": {"$ref": "#/$defs/whole:model"},
        "$defs": definitions,
    } | ({"$comment": f"left out: {'; '.join(left_out)}"} if left_out else {})


def _key(component: Component, variant: str) -> str:
    return f"{variant}:{component.spec.kind}:{component.plugin.distribution}:{component.spec.name}"


def _union(definitions: Schema, prefix: str) -> Schema:
    """Return one alternative for each component whose definition has a key that starts with `prefix`."""
    alternatives = [{"$ref": f"#/$defs/{key}"} for key in definitions if key.startswith(prefix)]
    return {"anyOf": alternatives} if alternatives else {"type": "object"}


def _component_schema(component: Component, variant: str) -> Schema:
    """Return what a section may hold that picks `component`."""
    config_class = component.config_class()
    schema: Schema = config_class.model_json_schema(ref_template=f"#/$defs/{_key(component, variant)}/$defs/{{model}}")
    selector: str = config_class.selector
    names = [component.spec.name, component.qualified_name]
    schema["properties"][selector] = schema["properties"].get(selector, {}) | {"enum": names}
    for node in _nodes(schema):
        node.pop("title", None)
        _name_sections(node, variant)
        _take_references(node)
        if variant == "partial":
            node.pop("required", None)
    if variant == "whole":
        schema["required"] = [selector, *(key for key in schema.get("required", ()) if key != selector)]
    if component.spec.kind == "model" and variant == "partial":
        schema["properties"] = {"extends": _EXTENDS} | schema["properties"]
    schema.setdefault("description", component.spec.summary)
    return schema


def _nodes(schema: Schema) -> Iterator[Schema]:
    """Yield every schema below `schema`, innermost first, so that each may be changed as it comes."""
    inner: list[object] = [
        *(one for key in _MAPPINGS for one in cast("Mapping[str, object]", schema.get(key, {})).values()),
        *(one for key in _LISTS for one in cast("Sequence[object]", schema.get(key, ()))),
        *(schema[key] for key in _SINGLES if key in schema),
    ]
    for one in inner:
        if isinstance(one, dict):
            yield from _nodes(cast("Schema", one))
    yield schema


def _name_sections(node: Schema, variant: str) -> None:
    """Let a section hold any component of its kind."""
    kind: Kind | None = node.get(PLACEHOLDER)
    if kind is not None:
        node["$ref"] = f"#/$defs/{variant}:{kind}"


def _take_references(node: Schema) -> None:
    """Let a scalar be `${key}` too."""
    if "oneOf" in node:  # two branches may take one reference
        node["anyOf"] = node.pop("oneOf")
    kind = node.get("type")
    is_text = kind == "string" or kind is None
    if kind in _NUMBERS or (is_text and _NARROWINGS & node.keys()):
        value = {key: node.pop(key) for key in list(node) if key not in ("description", "default", "$defs")}
        node["anyOf"] = [value, REFERENCE]
