"""The schema of architecture files: valid by its own dialect, fits every shipped file, refuses mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

import zoo
from zoo.catalog.architectures import architectures
from zoo_core.config.json_schema import architecture_schema
from zoo_core.documents.yaml_reader import read_document
from zoo_core.plugin import ComponentSpec
from zoo_core.registry import Plugin, Registry, default_registry

BASE = """
model: clip
embed_dim: 64
vision: {tower: vit, image_size: 32, patch_size: [8, 8], width: 64, layers: 2}
text: {tower: clip-transformer, context_length: 16, vocab_size: 1024, width: 64, heads: 1, layers: 2}
tokenizer: {type: clip-bpe, vocab_size: 1024}
preprocess: {type: image, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5], train: {scale: [0.8, 1.0]}}
"""


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(architecture_schema(default_registry()))


def changed(key: str, value: Any) -> dict[str, Any]:
    data = yaml.safe_load(BASE)
    *sections, last = key.split(".")
    node = data
    for section in sections:
        node = node[section]
    if value is None:
        del node[last]
    else:
        node[last] = value
    return data


def test_the_schema_is_valid_by_its_own_dialect() -> None:
    schema = architecture_schema(default_registry())
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.Draft202012Validator.check_schema(schema)
    assert "$comment" not in schema  # nothing of ours was left out


def test_every_reference_of_the_schema_leads_somewhere(validator: jsonschema.Draft202012Validator) -> None:
    def references(node: Any) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
            return own + [one for value in node.values() for one in references(value)]
        return [one for value in node for one in references(value)] if isinstance(node, list) else []

    found = references(validator.schema)
    assert found
    for reference in found:
        node: Any = validator.schema
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]


@pytest.mark.parametrize("entry", architectures().entries, ids=lambda entry: entry.name)
def test_every_shipped_architecture_fits(entry: Any, validator: jsonschema.Draft202012Validator) -> None:
    validator.validate(read_document(entry.path).data)


def test_every_resolved_config_fits_without_extends(validator: jsonschema.Draft202012Validator) -> None:
    for name in zoo.list_models():
        data = zoo.config(name).data()
        assert "extends" not in data
        validator.validate(data)


GOOD = {
    "the base": changed("embed_dim", 64),
    "a square size": changed("vision.patch_size", 8),
    "a whole number for a float": changed("vision.mlp_ratio", 4),
    "a qualified component": changed("vision.tower", "clip-zoo/vit"),
    "a reference for a number": changed("vision.width", "${text.width}"),
    "a reference for an optional number": changed("vision.ls_init_value", "${text.ls_init_value}"),
    "a reference for a choice": changed("vision.activation", "${text.activation}"),
    "a reference inside a list": changed("preprocess.mean", ["${preprocess.std[0]}", 0.5, 0.5]),
    "a reference for a component": changed("vision.tower", "${description}"),
    "a reference in a nested section": changed("preprocess.train.grey_probability", "${x}"),
    "another model": changed("model", "custom-text-clip"),
    "extends alone": {"extends": "vit-b16"},
    "a partial section": {"extends": "vit-b16", "vision": {"patch_size": 32}, "text": {"layers": 2}},
    "another tower in a partial file": {"extends": "vit-b16", "vision": {"tower": "vit"}},
}

BAD = {
    "no mapping": ["model", "clip"],
    "nothing": {},
    "a mistyped key": changed("embed_dims", 64),
    "a mistyped key in a section": changed("vision.patchsize", 8),
    "a mistyped key in a nested section": changed("preprocess.train.scales", [0.5, 1.0]),
    "text for a number": changed("vision.width", "wide"),
    "a number in quotes": changed("vision.width", "64"),
    "a fraction for a whole number": changed("vision.layers", 1.5),
    "true for a number": changed("vision.layers", True),
    "half a reference": changed("vision.width", "${text.width"),
    "a reference inside a text": changed("vision.width", "1${text.width}"),
    "too small": changed("vision.layers", 0),
    "no choice of the activation": changed("vision.activation", "relu"),
    "three sides": changed("vision.image_size", [32, 32, 32]),
    "two channels": changed("preprocess.mean", [0.5, 0.5]),
    "pixels of 0..255": changed("preprocess.mean", [123.0, 117.0, 104.0]),
    "a scalar for a section": changed("vision", "vit"),
    "a reference for a section": changed("vision", "${text}"),
    "no such tower": changed("vision.tower", "vitt"),
    "the tower of another kind": changed("vision.tower", "clip-transformer"),
    "no such model": changed("model", "klip"),
    "no model": changed("model", None),
    "no tower": changed("vision.tower", None),
    "no tokenizer": changed("tokenizer", None),
    "extends without extends' own rules": changed("extends", 3),
    "a mistyped key beside extends": {"extends": "vit-b16", "vison": {"patch_size": 32}},
    "a mistyped key in a partial section": {"extends": "vit-b16", "vision": {"patchsize": 32}},
    "a wrong type in a partial section": {"extends": "vit-b16", "text": {"layers": "two"}},
}


@pytest.mark.parametrize("data", GOOD.values(), ids=GOOD)
def test_what_the_loader_takes_fits(data: Any, validator: jsonschema.Draft202012Validator) -> None:
    validator.validate(data)


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_a_mistake_does_not_fit(data: Any, validator: jsonschema.Draft202012Validator) -> None:
    assert not validator.is_valid(data)


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_the_loader_refuses_what_the_schema_refuses(data: Any, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(data))
    with pytest.raises(zoo.ZooError):
        zoo.config(tmp_path / "bad.yaml")


def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> Plugin:
    (tmp_path / "acme_config.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "acme_config", raising=False)
    spec = ComponentSpec("vision-tower", "mean-pool", "acme_config:MeanPool", "acme_tower:MeanPool", "Mean of pixels")
    return Plugin("acme", "acme.plugin", "acme-towers", "1.2", components=(spec,))


def with_plugin(plugin: Plugin) -> dict[str, Any]:
    return architecture_schema(Registry([*default_registry().plugins, plugin]))


def test_the_parts_of_a_stranger_are_alternatives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "from zoo_core.config import VisionTowerConfig\n"
        "class MeanPool(VisionTowerConfig):\n"
        "    tower: str = 'mean-pool'\n"
        "    gain: float\n"
    )
    check = jsonschema.Draft202012Validator(with_plugin(stranger(tmp_path, monkeypatch, code)))
    section = {"tower": "mean-pool", "image_size": 32, "gain": 1.5}
    assert check.is_valid(changed("vision", section))
    assert not check.is_valid(changed("vision", {"tower": "mean-pool", "image_size": 32}))  # gain is required ...
    assert check.is_valid({"extends": "vit-b16", "vision": {"gain": 2.0}})  # ... but where a file extends another
    assert not check.is_valid(changed("vision", {**section, "patch_size": 8}))  # a key of another tower
    assert not check.is_valid(changed("vision", {"tower": "vit", "gain": 1.0}))


def test_a_strangers_broken_config_is_left_out_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    schema = with_plugin(stranger(tmp_path, monkeypatch, "raise RuntimeError('no licence')"))
    assert "acme-towers 1.2" in schema["$comment"]
    assert "no licence" in schema["$comment"]
    assert jsonschema.Draft202012Validator(schema).is_valid(yaml.safe_load(BASE))


def test_keys_explain_themselves_to_an_editor() -> None:
    definitions = architecture_schema(default_registry())["$defs"]
    patch = definitions["partial:vision-tower:clip-zoo:vit"]["properties"]["patch_size"]
    assert "divides the image size" in patch["description"]
