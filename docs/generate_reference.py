"""Write docs/yaml-reference.md from the configs of the installed components: `python docs/generate_reference.py`.

The suite compares the file with what this module returns, so that the reference cannot fall behind the code.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zoo
from zoo.training.recipe.recipe import Recipe

TARGET = Path(__file__).with_name("yaml-reference.md")

INTRODUCTION = """# YAML reference

Every key of an architecture file, by component. This page is generated: run `python docs/generate_reference.py`
after changing a config. `zoo schema` writes the same as JSON Schema, for editors.

An architecture is a mapping. `model` picks the model, `tower` or `type` picks the component of a section; the
component's own config then decides which other keys there are. One more key belongs to the file, not to the model:

| key | what it does |
|---|---|
| `extends` | an architecture, or a `.yaml` file beside this one, whose keys are taken over |

Sections are merged key by key; a section that names another component starts empty. A whole value may also be
`${other.key}`, which stands for the value of that key.
"""

HEADINGS = {
    "model": "Models",
    "vision-tower": "Vision towers (section `vision`)",
    "text-tower": "Text towers (section `text`)",
    "tokenizer": "Tokenizers (section `tokenizer`)",
    "preprocessor": "Preprocessors (section `preprocess`)",
    "loss": "Losses (`zoo.loss(type, ...)`, and section `loss` of a recipe)",
    "dataset": "Data sets (section `data` of a recipe)",
    "optimizer": "Optimizers (section `optimizer` of a recipe)",
    "callback": "Callbacks (section `log.to` of a recipe)",
    "evaluator": "Evaluators (section `evaluate.evaluators` of a recipe)",
}

RECIPES = """## Recipes

Every key of a recipe of `zoo train`, strict as those of an architecture; it may extend another recipe by name or path.
[Train a model](train.md) begins with one.
"""


def reference() -> str:
    """Return the page."""
    return "\n".join([INTRODUCTION, *_chapters()])


def _chapters() -> Iterator[str]:
    registry = zoo.registry()
    for kind, heading in HEADINGS.items():
        yield f"## {heading}\n"
        for component in registry.components(kind):
            config = component.config_class()
            yield f"### `{component.spec.name}`\n\n{component.spec.summary}.\n"
            if component.spec.capabilities:
                yield f"Capabilities: {', '.join(sorted(component.spec.capabilities))}.\n"
            yield from _table(config.model_json_schema())
    yield RECIPES
    yield from _table(Recipe.model_json_schema())


def _table(schema: dict[str, Any]) -> Iterator[str]:
    yield "| key | value | default | what it is |\n|---|---|---|---|"
    yield from _rows(schema, schema, "")
    yield ""


def _rows(fields: dict[str, Any], schema: dict[str, Any], prefix: str) -> Iterator[str]:
    """Yield one row a key; a nested section gives its own keys, dotted."""
    for key, field in fields["properties"].items():
        choices = [_resolved(choice, schema) for choice in field.get("anyOf", ())]
        optional = [choice for choice in choices if "properties" in choice]  # a section that may be left out
        resolved = optional[0] if optional else _resolved(field, schema)
        if "properties" in resolved:
            yield from _rows(resolved, schema, f"{prefix}{key}.")
            continue
        if key in ("model", "tower", "type") and "default" in field and not prefix:
            yield f"| `{key}` | `{field['default']}` | required | Picks this component. |"
            continue
        default = "required" if key in fields.get("required", ()) else f"`{_plain(field.get('default'))}`"
        text = " ".join(field.get("description", "").split())
        yield f"| `{prefix}{key}` | {_value(resolved, schema)} | {default} | {text} |"


def _resolved(field: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    return schema["$defs"][field["$ref"].rpartition("/")[2]] if "$ref" in field else field


def _plain(value: object) -> str:
    """Return a default as YAML writes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def _value(field: dict[str, Any], schema: dict[str, Any]) -> str:
    """Return what a key takes, in words."""
    if "x-zoo-kind" in field:
        return f"a section ({field['x-zoo-kind']})"
    if "enum" in field:
        return ", ".join(f"`{choice}`" for choice in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(_value(_resolved(choice, schema), schema) for choice in field["anyOf"]))
    names = {"integer": "whole number", "boolean": "`true`, `false`", "array": "list", "null": "`null`"}
    return names.get(field.get("type", ""), field.get("type", "any")) + _range(field)


def _range(field: dict[str, Any]) -> str:
    limits = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    bounds = [f"{words} {field[key]:g}" for key, words in limits.items() if key in field]
    return f", {' and '.join(bounds)}" if bounds else ""


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")
