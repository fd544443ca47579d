"""JSON Schema of architecture files, for completion and checks in an editor.

It is made from the config classes of the installed components, those of other distributions included. Every component
appears twice: `whole`, as a file without `extends` needs it, and `partial`, where nothing is required. What no schema
can express (a patch that divides the image) is left to `zoo validate`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

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
NO_PARTS = ("loss", "checkpoint-format", "dataset", "optimizer", "callback", "evaluator")
"""Kinds that are no part of an architecture."""
_NARROWINGS = {"enum", "const", "pattern", "format", "minLength", "maxLength"}


def architecture_schema(registry: Registry) -> Schema:
    """Return the JSON Schema (draft 2020-12) of an architecture file.

    A component whose config cannot be imported or described by a schema is left out; `$comment` names it and why.
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
        for kind in (kind for kind in registry.kinds if kind not in NO_PARTS):
            alternatives = [{"$ref": f"#/$defs/{key}"} for key in definitions if key.startswith(f"{variant}:{kind}:")]
            definitions[f"{variant}:{kind}"] = {"anyOf": alternatives} if alternatives else {"type": "object"}
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


def _component_schema(component: Component, variant: str) -> Schema:
    """Return what a section may hold that picks `component`."""
    config_class = component.config_class()
    schema: Schema = config_class.model_json_schema(ref_template=f"#/$defs/{_key(component, variant)}/$defs/{{model}}")
    selector: str = config_class.selector
    names = [component.spec.name, component.qualified_name]
    schema["properties"][selector] = schema["properties"].get(selector, {}) | {"enum": names}
    for node in _nodes(schema):
        node.pop("title", None)
        if PLACEHOLDER in node:  # a section holds any component of its kind
            node["$ref"] = f"#/$defs/{variant}:{node[PLACEHOLDER]}"
        _allow_reference(node)
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
        *(node for key in _MAPPINGS for node in cast("Mapping[str, object]", schema.get(key, {})).values()),
        *(node for key in _LISTS for node in cast("Sequence[object]", schema.get(key, ()))),
        *(schema[key] for key in _SINGLES if key in schema),
    ]
    for node in inner:
        if isinstance(node, dict):
            yield from _nodes(cast("Schema", node))
    yield schema


def _allow_reference(node: Schema) -> None:
    """Let `${key}` stand for a value that is no string of any kind: `{type: integer}` becomes

    {anyOf: [{type: integer}, REFERENCE]}
    """
    if "oneOf" in node:  # exactly one branch must match, but a reference may match two
        node["anyOf"] = node.pop("oneOf")
    kind = node.get("type")
    is_narrow_text = kind in ("string", None) and bool(_NARROWINGS & node.keys())  # a plain string takes `${key}` as is
    if kind in _NUMBERS or is_narrow_text:
        value = {key: node.pop(key) for key in list(node) if key not in ("description", "default", "$defs")}
        node["anyOf"] = [value, REFERENCE]
