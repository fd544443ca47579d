"""Modalities of plugins: declared, looked up, and refused where they clash."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from support.plugins import Install, hooks, spec
from zoo_core.config import TowerConfig, VisionTowerConfig
from zoo_core.config.dual_encoder import AnyModalityConfig
from zoo_core.errors import AmbiguousNameError, InputError, PluginError, UnknownNameError
from zoo_core.models.modality import Modality
from zoo_core.models.towers import modalities_of
from zoo_core.plugin import IMAGE, TEXT, ModalitySpec

TARGETS = {key: f"acme.parts:{key}" for key in ("handler", "tower_config", "processor_config")}


def modality(name: Any = "depth", **fields: Any) -> ModalitySpec:
    return ModalitySpec(name=name, **TARGETS | fields)


def tower(**fields: Any) -> Any:
    return spec("depth-conv", kind="tower", modality="depth", **fields)


def test_names_follow_from_the_modality() -> None:
    depth = modality()
    assert (depth.section, depth.processor, depth.module) == ("depth", "depth_preprocess", "depth")
    assert (depth.tower_kind, depth.processor_kind, depth.files) == ("depth-tower", "depth-preprocessor", ())
    assert pickle.loads(pickle.dumps(depth)) == depth


MALFORMED = {
    "upper case": ({"name": "Depth"}, "modality 'Depth': a name is an identifier in lower case, such as 'depth'"),
    "dash": ({"name": "depth-map"}, "a name is an identifier in lower case"),
    "no text": ({"name": 3}, "modality 3: a name is an identifier"),
    "section": ({"section": "a b"}, "modality 'depth': section must be an identifier, found 'a b'"),
    "handler": ({"handler": "acme.parts"}, "modality 'depth': handler must read 'module:name', found 'acme.parts'"),
    "files text": ({"files": ".npy"}, "modality 'depth': files holds endings such as ('.npy',), found '.npy'"),
    "files": ({"files": ("npy",)}, "files holds endings such as ('.npy',), found ('npy',)"),
}


@pytest.mark.parametrize(("fields", "message"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_modality_is_refused(fields: Any, message: str) -> None:
    with pytest.raises(ValueError) as raised:
        modality(**fields)
    assert message in str(raised.value)


PARTS = {
    "other kind": ({"kind": "loss", "modality": "depth"}, "a part of a modality has kind 'tower' or 'preprocessor'"),
    "no modality": ({"kind": "tower"}, "unknown kind 'tower'; allowed: vision-tower, "),
    "modality of no name": ({"kind": "tower", "modality": "De pth"}, "modality is a name such as 'depth'"),
    "kind without it": ({"kind": "depth-tower"}, "a tower of another modality has kind 'tower' and names its modality"),
}


@pytest.mark.parametrize(("fields", "message"), PARTS.values(), ids=PARTS)
def test_a_part_of_a_modality_names_it(fields: Any, message: str) -> None:
    with pytest.raises(ValueError) as raised:
        spec(**fields)
    assert message in str(raised.value)
    assert tower().kind == "depth-tower"


def test_parts_are_found_by_the_kinds_of_the_modality(install: Install) -> None:
    registry = install({"acme": hooks(modalities=[modality()], components=[tower()])})
    assert [one.spec.name for one in registry.components("depth-tower")] == ["depth-conv"]
    assert registry.modality("depth") == modality()
    assert registry.modalities == (IMAGE, TEXT, modality())
    assert registry.kinds[-2:] == ("depth-tower", "depth-preprocessor")


def test_a_tower_may_come_from_another_plugin_than_its_modality(install: Install) -> None:
    registry = install({"one": hooks(modalities=[modality()]), "two": hooks(components=[tower()])})
    assert registry.get("depth-tower", "depth-conv").plugin.distribution == "two"
    assert not registry.quarantined


def test_a_part_of_a_modality_that_nobody_declares_is_quarantined(install: Install) -> None:
    registry = install({"acme": hooks(components=[tower(), spec()])})
    (plugin,) = registry.quarantined
    assert plugin.error == "depth-tower 'depth-conv' is of modality 'depth', which no plugin declares"
    with pytest.raises(UnknownNameError, match="quarantined plugins: parts"):
        registry.get("vision-tower", "conv")


TAKEN = {
    "name": modality("image"),
    "section": modality(section="vision"),
    "processor": modality(processor="tokenizer"),
    "module": modality(module="visual"),
    "kind": modality(tower_kind="loss"),
}


@pytest.mark.parametrize("field", TAKEN)
def test_a_modality_takes_no_name_of_zoos_own(install: Install, field: str) -> None:
    (plugin,) = install({"acme": hooks(modalities=[TAKEN[field]])}).quarantined
    assert "is zoo's own; choose another" in str(plugin.error)


TWICE = {
    "two modalities": [modality(), modality("range", section="depth")],
    "tower and processor": [modality(processor="depth")],
}


@pytest.mark.parametrize("case", TWICE)
def test_a_section_of_a_plugin_is_of_one_modality(install: Install, case: str) -> None:
    (plugin,) = install({"acme": hooks(modalities=TWICE[case])}).quarantined
    assert plugin.error == "ValueError: zoo_modalities declares the section 'depth' twice; choose another"


@pytest.mark.parametrize("key", ["embed_dim", "init_logit_scale", "extends", "towers", "model_dump"])
@pytest.mark.parametrize("field", ["section", "processor"])
def test_a_section_has_no_name_that_models_have_taken(install: Install, field: str, key: str) -> None:
    (plugin,) = install({"acme": hooks(modalities=[modality(**{field: key})])}).quarantined
    expected = f"ValueError: zoo_modalities declares the section '{key}', which is a key of models; choose another"
    assert plugin.error == expected


def test_a_section_that_two_plugins_claim_is_told_with_both(install: Install) -> None:
    registry = install(
        {"one": hooks(modalities=[modality()]), "two": hooks(modalities=[modality("range", section="depth")])}
    )
    with pytest.raises(ValidationError, match=r"'depth' of parts \(one 1.0\) and 'range' of parts \(two 1.0\); leave"):
        AnyModalityConfig.model_validate({"embed_dim": 16, "depth": {}}, context={"registry": registry})


def test_two_plugins_with_one_modality_are_both_named(install: Install) -> None:
    registry = install({name: hooks(modalities=[modality()]) for name in ("one", "two")})
    with pytest.raises(AmbiguousNameError, match=r"claimed by parts \(one 1.0\) and by parts \(two 1.0\)"):
        registry.modality("depth")


def test_unknown_names_are_told_with_what_there_is(install: Install) -> None:
    registry = install({"acme": hooks(modalities=[modality()])})
    with pytest.raises(UnknownNameError, match="unknown modality 'dept', did you mean 'depth'"):
        registry.modality("dept")
    with pytest.raises(InputError, match="unknown kind of component 'dept-tower', did you mean 'depth-tower'"):
        registry.get("dept-tower", "conv")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (
            "nobody.wrote:This",
            "modality 'depth' of parts (acme 1.0): its tower_config nobody.wrote:This cannot be imported",
        ),
        ("json:loads", "its tower_config json:loads is not a subclass of zoo_core.config.components.VisionTowerConfig"),
    ],
)
def test_a_class_that_cannot_be_used_is_named(install: Install, target: str, message: str) -> None:
    registry = install({"acme": hooks(modalities=[modality(tower_config=target)])})
    with pytest.raises(PluginError) as raised:
        registry.modality_class("depth", "tower_config", VisionTowerConfig)
    assert message in str(raised.value)


class Nameless(TowerConfig):
    """The base of configs of towers, which does not say of what."""


class Other(Nameless):
    kind = "depth-tower"
    modality = "audio"


@pytest.mark.parametrize(
    ("base", "message"),
    [
        (Nameless, "must have kind = 'depth-tower', found None"),
        (Other, "must have modality = 'depth', found 'audio'"),
    ],
)
def test_a_base_of_configs_is_held_to_its_modality(install: Install, base: type[Any], message: str) -> None:
    target = f"{__name__}:{base.__name__}"
    registry = install({"acme": hooks(modalities=[modality(tower_config=target)])})
    with pytest.raises(PluginError) as raised:
        registry.modality_class("depth", "tower_config", TowerConfig)
    assert str(raised.value) == f"modality 'depth' of parts (acme 1.0): its tower_config {target} {message}"


class Handler(Modality):
    """A handler each of whose methods does something wrong."""

    def check(self, batch: Any, tower: Any) -> Any:
        return batch

    def example(self, tower: Any, count: int, processor: Any = None) -> Tensor:
        raise KeyError("size")

    def probe_inputs(self) -> Any:
        return 3

    def processor(self, model: Any) -> Any:
        raise InputError("there is none today")


class Unfinished(Modality):
    pass


CALLS: dict[str, tuple[Any, str]] = {
    "raises": (lambda handler: handler.example(None, 1), "example failed: KeyError: 'size'"),
    "returns": (lambda handler: handler.probe_inputs(), "probe_inputs must return"),
    "returns more": (lambda handler: handler.check(1, None), "check must return None, found 1"),
}


@pytest.mark.parametrize(("call", "message"), CALLS.values(), ids=CALLS)
def test_what_a_handler_does_wrong_is_told_with_modality_handler_and_plugin(
    install: Install, call: Any, message: str
) -> None:
    target = f"{__name__}:Handler"
    handler = modalities_of(install({"acme": hooks(modalities=[modality(handler=target)])}), ["depth"])["depth"]
    with pytest.raises(PluginError) as raised:
        call(handler)
    assert str(raised.value).startswith(f"modality 'depth' of parts (acme 1.0) ({target}): {message}")


def test_an_error_of_zoo_that_a_handler_raises_comes_as_it_is(install: Install) -> None:
    registry = install({"acme": hooks(modalities=[modality(handler=f"{__name__}:Handler")])})
    with pytest.raises(InputError, match="^there is none today$"):
        modalities_of(registry, ["depth"])["depth"].processor(torch.nn.Identity())


class WithoutSpec(Handler):
    def __init__(self, spec: ModalitySpec) -> None:
        pass


def test_a_handler_that_does_not_keep_its_declaration_is_named(install: Install) -> None:
    target = f"{__name__}:WithoutSpec"
    registry = install({"acme": hooks(modalities=[modality(handler=target)])})
    with pytest.raises(PluginError, match=f"its handler {target} must call Modality.__init__ with its spec"):
        modalities_of(registry, ["depth"])


def test_a_handler_without_its_methods_is_named(install: Install) -> None:
    target = f"{__name__}:Unfinished"
    registry = install({"acme": hooks(modalities=[modality(handler=target)])})
    with pytest.raises(PluginError) as raised:
        modalities_of(registry, ["depth"])
    assert f"modality 'depth' of parts (acme 1.0): its handler {target} failed: TypeError" in str(raised.value)
