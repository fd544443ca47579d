"""The registry: what plugins declare is found, and a plugin that misbehaves harms nobody but itself."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path
from typing import Any

import pytest

import zoo
from support.plugins import ConvConfig, Distribution, EntryPoint, Install, hooks, spec
from zoo_core.errors import (
    AmbiguousNameError,
    MissingDependencyError,
    PluginError,
    UnknownNameError,
    ZooError,
)
from zoo_core.plugin import hookimpl
from zoo_core.registry import Registry


class UnreadableError(Exception):
    def __str__(self) -> str:
        return "two\n   lines"


@hookimpl
def zoo_component() -> tuple[()]:
    return ()


MISSPELT = hooks()
MISSPELT.zoo_component = zoo_component
UNMARKED = hooks()
UNMARKED.zoo_components = lambda: [spec()]
TAKES_ARGUMENT = hooks()
TAKES_ARGUMENT.zoo_components = hookimpl(lambda kind: [spec()])

QUARANTINED = {
    "no module": ("nobody_wrote_this", "ModuleNotFoundError: No module named 'nobody_wrote_this'"),
    "no attribute": ("json:nothing", "AttributeError: module 'json' has no attribute 'nothing'"),
    "no version": (
        hooks(None),
        "it declares no API version, this zoo speaks API version 1; set ZOO_API_VERSION = 1",
    ),
    "other version": (hooks(99), "it declares API version 99, this zoo speaks API version 1; "),
    "misspelt hook": (MISSPELT, "PluginValidationError: unknown hook 'zoo_component' in plugin"),
    "unmarked hook": (UNMARKED, "TypeError: zoo_components lacks its marker; write @hookimpl above it"),
    "wrong arguments": (TAKES_ARGUMENT, "PluginValidationError: Plugin 'parts' for hook 'zoo_components'"),
    "hook raises": (hooks(components=RuntimeError("no\n licence")), "RuntimeError: no licence"),
    "hook exits": (hooks(components=SystemExit(3)), "SystemExit: 3"),
    "odd error": (hooks(components=UnreadableError()), "UnreadableError: two lines"),
    "empty error": (hooks(components=ValueError()), "ValueError"),
    "returns nothing": (hooks(components=None), "TypeError: zoo_components returned nothing"),
    "no specs": (hooks(components=5), "TypeError: zoo_components must return component specs, found int"),
    "other things": (
        hooks(components=["vit"]),
        "TypeError: zoo_components must return component specs, found str",
    ),
    "twice": (
        hooks(components=[spec(), spec()]),
        "ValueError: zoo_components declares vision-tower 'conv' twice",
    ),
    "generator raises": (
        hooks(components=(spec(name) for name in ("good", "Bad Name"))),
        "ValueError: vision-tower 'Bad Name': a name is kebab-case",
    ),
    "no folder": (
        hooks(architectures="zoo:no-such-folder"),
        "FileNotFoundError: zoo_architectures names 'zoo:no-such-folder', which is no folder",
    ),
    "no package": (hooks(pretrained="nobody_wrote_this:x"), "ModuleNotFoundError: No module named"),
    "folder of another type": (
        hooks(architectures=Path("x")),
        "TypeError: zoo_architectures must return 'package:folder', found PosixPath",
    ),
    "exports list": (hooks(exports=["CLIP"]), "TypeError: zoo_exports must return a mapping, found list"),
    "exports class": (
        hooks(exports={"CLIP": ConvConfig}),
        "TypeError: zoo_exports maps names to 'module:attribute', found 'CLIP': <class",
    ),
    "exports bare": (
        hooks(exports={"CLIP": "zoo"}),
        "TypeError: zoo_exports maps names to 'module:attribute'",
    ),
    "importers list": (hooks(importers=["x"]), "TypeError: zoo_importers must return a mapping, found list"),
    "importers bare": (
        hooks(importers={"acme": "zoo"}),
        "TypeError: zoo_importers maps names to 'module:attribute', found 'acme': 'zoo'",
    ),
}
"""What is wrong -> plugin module, and how the reason begins."""


@pytest.mark.parametrize(("module", "reason"), QUARANTINED.values(), ids=QUARANTINED)
def test_a_bad_plugin_is_quarantined_and_the_good_one_works(install: Install, module: Any, reason: str) -> None:
    registry = install({"acme/parts": module, "good/parts": hooks(components=[spec("fine")])})
    (bad,) = registry.quarantined
    assert bad.error is not None
    assert bad.error.startswith(reason)
    assert "\n" not in bad.error
    assert (bad.label, bad.components, dict(bad.exports)) == ("parts (acme 1.0)", (), {})
    assert registry.get("vision-tower", "fine").plugin.distribution == "good"


@pytest.mark.parametrize("raised", ["raise SystemExit(2)", "import sys; sys.exit()", "1 / 0", "def"])
def test_a_module_that_fails_at_import_is_quarantined(
    install: Install, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, raised: str
) -> None:
    (tmp_path / "failing_plugin.py").write_text(raised)
    monkeypatch.syspath_prepend(tmp_path)
    assert [one.distribution for one in install({"acme": "failing_plugin"}).quarantined] == ["acme"]


def test_a_plugin_may_declare_nothing(install: Install) -> None:
    registry = install({"acme": hooks()})
    assert not registry.quarantined
    assert not list(registry.components())


def test_whoever_asks_for_a_missing_part_is_told_of_the_quarantined_plugins(install: Install) -> None:
    registry = install({"acme": "nobody_wrote_this", "good": hooks(components=[spec()])})
    with pytest.raises(UnknownNameError, match=r"unknown vision-tower 'lidar'; .*; quarantined plugins: parts \(acme"):
        registry.get("vision-tower", "lidar")


def test_a_misspelt_name_is_answered_with_the_nearest(install: Install) -> None:
    registry = install({"acme-towers": hooks(components=[spec("conv-mean"), spec("other", kind="text-tower")])})
    for asked, near in {
        "conv-men": "conv-mean",
        "acme-tower/conv-mean": "acme-towers/conv-mean",
        "acme-towers/conv-men": "acme-towers/conv-mean",
    }.items():
        with pytest.raises(UnknownNameError, match=re.escape(f"'{asked}', did you mean '{near}'?")):
            registry.get("vision-tower", asked)


def test_a_name_is_unknown_in_another_kind(install: Install) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown text-tower 'conv'$"):
        install({"acme": hooks(components=[spec()])}).get("text-tower", "conv")


@pytest.fixture
def clash(install: Install) -> Registry:
    return install({name: hooks(components=[spec()]) for name in ("Acme_Towers", "other")})


def test_a_name_that_two_claim_is_refused_with_both_owners_and_the_cure(clash: Registry) -> None:
    with pytest.raises(AmbiguousNameError) as raised:
        clash.get("vision-tower", "conv")
    assert str(raised.value) == (
        "vision-tower 'conv' is claimed by parts (Acme_Towers 1.0) and by parts (other 1.0); write "
        "'Acme_Towers/conv' or 'other/conv', or leave one out with ZOO_DISABLE_PLUGINS"
    )
    assert [[one.plugin.distribution for one in owners] for owners in clash.clashes] == [["Acme_Towers", "other"]]


@pytest.mark.parametrize("spelling", ["Acme_Towers", "acme-towers", "acme.towers", "ACME__towers"])
def test_a_qualified_name_reaches_its_owner_in_any_spelling(clash: Registry, spelling: str) -> None:
    assert clash.get("vision-tower", f"{spelling}/conv").plugin.distribution == "Acme_Towers"


def test_one_distribution_that_claims_a_name_twice_is_not_told_to_qualify_it(install: Install) -> None:
    registry = install({f"acme/{name}": hooks(components=[spec()]) for name in ("one", "two")})
    for name in ("conv", "acme/conv"):
        with pytest.raises(AmbiguousNameError, match=r"one \(acme 1.0\) and by two \(acme 1.0\); leave one out with"):
            registry.get("vision-tower", name)


def test_a_distributions_own_name_means_its_own_part(clash: Registry) -> None:
    assert clash.qualified("vision-tower", "conv", "acme-towers") == "Acme_Towers/conv"
    assert clash.qualified("vision-tower", "conv", "third") == "conv"


def test_a_name_without_a_clash_stays_as_it_is(install: Install) -> None:
    assert install({"acme": hooks(components=[spec()])}).qualified("vision-tower", "conv", "acme") == "conv"


@pytest.mark.parametrize("disable", ["acme-towers", "Acme_Towers", " acme.towers ,x", "conv", "acme_towers/conv"])
def test_a_plugin_can_be_left_out_by_any_of_its_names(install: Install, disable: str) -> None:
    plugins = {"Acme_Towers/conv": hooks(components=[spec()]), "other/parts": hooks(components=[spec()])}
    registry = install(plugins, disable=disable)
    assert registry.get("vision-tower", "conv").plugin.distribution == "other"


def test_a_plugin_that_is_left_out_is_not_even_imported(install: Install) -> None:
    assert not install({"acme/gone": "nobody_wrote_this"}, disable="acme/gone").plugins


def test_what_a_plugin_is_asked_for_that_is_left_out_is_told_with_it(install: Install) -> None:
    registry = install({"acme/gone": hooks(components=[spec()])}, disable="gone")
    with pytest.raises(UnknownNameError, match=r"'conv'; left out by ZOO_DISABLE_PLUGINS: gone \(acme 1.0\)$"):
        registry.get("vision-tower", "conv")


def test_what_a_plugin_prints_is_no_output_of_a_command(
    install: Install, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "chatty_plugin.py").write_text("ZOO_API_VERSION = 1\nprint('hello')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not install({"acme": "chatty_plugin"}).quarantined
    assert capsys.readouterr() == ("", "hello\n")


def test_the_order_of_plugins_does_not_depend_on_the_order_of_entry_points(install: Install) -> None:
    labels = ["b/two", "a/one", "b/one", "c/one"]
    orders = [
        [f"{one.distribution}/{one.name}" for one in install({label: hooks() for label in order}).plugins]
        for order in (labels, labels[::-1])
    ]
    assert orders == [["a/one", "b/one", "b/two", "c/one"]] * 2


def test_a_plugin_knows_where_it_comes_from(install: Install) -> None:
    component = install({"acme-towers/extra": hooks(components=[spec()])}).get("vision-tower", "conv")
    assert component.plugin.label == "extra (acme-towers 1.0)"
    assert component.plugin.target == "installed_plugin_0"
    assert str(component) == "vision-tower 'conv' of acme-towers 1.0"
    assert component.qualified_name == "acme-towers/conv"


def test_a_distribution_whose_metadata_is_gone_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [
        EntryPoint("half", "nobody_wrote_this", Distribution(None, None)),
        EntryPoint("bare", "nobody_wrote_this", None),
        EntryPoint("losses", "zoo_losses.plugin", Distribution("clip-zoo", "1")),
    ]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: entries)
    registry = Registry.discover()
    assert {one.label for one in registry.quarantined} == {"half (unknown 0)", "bare (unknown 0)"}
    assert registry.get("loss", "contrastive").plugin.label == "losses (clip-zoo 1)"


def test_the_metadata_of_a_distribution_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Slow:
        version = "1"

        @property
        def name(self) -> str:
            asked.append("name")
            return "acme"

    one = Slow()
    entries = [EntryPoint(str(number), "nobody_wrote_this", one) for number in range(5)]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: entries)
    assert len(Registry.discover().plugins) == 5
    assert asked == ["name"]


def test_another_packages_malformed_entry_points_hide_no_plugin(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, entries in {"broken": "no equals sign", "acme": "losses = zoo_losses.plugin"}.items():
        folder = tmp_path / f"{name}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(f"[zoo.plugins]\n{entries}\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TypeError):
        importlib.metadata.entry_points(group="zoo.plugins")
    labels = {one.label for one in Registry.discover().plugins}
    assert "losses (acme 1.0)" in labels
    assert any(label.startswith("vit (clip-zoo ") for label in labels)


def test_config_and_factory_are_imported_on_first_use(install: Install) -> None:
    component = install({"acme": hooks(components=[spec()])}).get("vision-tower", "conv")
    assert component.config_class() is ConvConfig
    assert component.build("config", embed_dim=8).given == ("config", 8)


UNUSABLE = {
    "no module": (
        {"factory": "nobody_wrote_this:Tower"},
        "its factory nobody_wrote_this:Tower cannot be imported: ModuleNotFoundError: No module named",
    ),
    "no attribute": (
        {"factory": "json:Tower"},
        "its factory json:Tower cannot be imported: AttributeError: module 'json' has no attribute 'Tower'",
    ),
    "config": (
        {"config": "json:dumps"},
        "json:dumps is not a subclass of zoo_core.config.Config, found <function",
    ),
    "config module": ({"config": "nobody:C"}, "its config nobody:C cannot be imported: ModuleNotFoundError"),
}


@pytest.mark.parametrize(("fields", "message"), UNUSABLE.values(), ids=UNUSABLE)
def test_a_part_that_cannot_be_imported_names_its_owner(install: Install, fields: Any, message: str) -> None:
    component = install({"acme": hooks(components=[spec(**fields)])}).get("vision-tower", "conv")
    with pytest.raises(PluginError) as raised:
        component.config_class()
        component.build(None)
    assert str(raised.value).startswith(f"vision-tower 'conv' of acme 1.0: {message}")


def test_a_missing_package_is_told_with_the_command_that_installs_it(install: Install) -> None:
    declared = spec(requires=("nobody-wrote-this", "pydantic", "nor-this"))
    component = install({"acme": hooks(components=[declared])}).get("vision-tower", "conv")
    assert component.missing == ("nobody-wrote-this", "nor-this")
    with pytest.raises(MissingDependencyError) as raised:
        component.build(None)
    assert str(raised.value) == (
        "vision-tower 'conv' of acme 1.0 needs nobody-wrote-this nor-this, which is not installed; "
        "run: pip install nobody-wrote-this nor-this"
    )


MALFORMED = {
    "kind": (
        {"kind": "lidar-tower"},
        "component 'conv': unknown kind 'lidar-tower'; allowed: vision-tower, text-tower",
    ),
    "kind type": ({"kind": ["model"]}, "component 'conv': unknown kind ['model']"),
    "upper case": ({"name": "Conv"}, "vision-tower 'Conv': a name is kebab-case, such as 'my-tower'"),
    "underscore": ({"name": "my_conv"}, "vision-tower 'my_conv': a name is kebab-case"),
    "slash": ({"name": "acme/conv"}, "vision-tower 'acme/conv': a name is kebab-case"),
    "empty": ({"name": ""}, "vision-tower '': a name is kebab-case"),
    "name type": ({"name": 5}, "vision-tower 5: a name is kebab-case"),
    "config": ({"config": "acme.config.Conv"}, "config must read 'module:name', found 'acme.config.Conv'"),
    "config class": ({"config": ConvConfig}, "config must read 'module:name', found <class"),
    "factory": ({"factory": "acme tower:Conv"}, "factory must read 'module:name', found 'acme tower:Conv'"),
    "requires text": ({"requires": "timm"}, "requires takes several names, found 'timm'; put it in a tuple"),
    "requires version": (
        {"requires": ("timm>=1",)},
        "requires holds names of distributions such as 'timm', found 'timm>=1'",
    ),
    "requires type": ({"requires": (5,)}, "requires holds names of distributions such as 'timm', found 5"),
    "capability": (
        {"capabilities": {"flying"}},
        "unknown capabilities ['flying']; allowed: tokens, intermediates",
    ),
    "capability text": (
        {"capabilities": "tokens"},
        "capabilities takes several names, found 'tokens'; put it in a tuple",
    ),
}
"""What is wrong -> fields of the spec, and a part of the message."""


@pytest.mark.parametrize(("fields", "message"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_spec_is_refused(fields: Any, message: str) -> None:
    with pytest.raises(ValueError) as raised:
        spec(**fields)
    assert message in str(raised.value)


def test_exports_are_imported_on_first_use(install: Install) -> None:
    registry = install({"acme": hooks(exports={"Conv": f"{__name__}:ConvConfig", "Gone": "nobody:Gone"})})
    assert registry.exported_names() == ("Conv", "Gone")
    assert registry.export("Conv") is ConvConfig
    with pytest.raises(PluginError, match=r"'Gone' of parts \(acme 1.0\): nobody:Gone cannot be imported"):
        registry.export("Gone")
    with pytest.raises(UnknownNameError, match="no plugin exports 'Conf', did you mean 'Conv'"):
        registry.export("Conf")


def test_an_export_that_two_offer_is_refused_with_both_owners(install: Install) -> None:
    registry = install({name: hooks(exports={"Conv": f"{__name__}:ConvConfig"}) for name in ("one", "two")})
    with pytest.raises(AmbiguousNameError, match=r"by parts \(one 1.0\) and by parts \(two 1.0\); leave one out"):
        registry.export("Conv")


def test_importers_are_imported_on_first_use(install: Install) -> None:
    registry = install({"acme": hooks(importers={"acme": "builtins:vars", "gone": "nobody:read"})})
    assert registry.importer("acme")(zoo)["__name__"] == "zoo"
    with pytest.raises(PluginError, match=r"'gone' of parts \(acme 1.0\): nobody:read cannot be imported"):
        registry.importer("gone")
    with pytest.raises(UnknownNameError, match="no plugin imports 'acmee', did you mean 'acme'"):
        registry.importer("acmee")


def test_an_importer_that_two_offer_is_refused_with_both_owners(install: Install) -> None:
    registry = install({name: hooks(importers={"acme": f"{__name__}:hooks"}) for name in ("one", "two")})
    with pytest.raises(AmbiguousNameError, match=r"'acme' is imported by parts \(one 1.0\) and by parts \(two 1.0\)"):
        registry.importer("acme")


@pytest.mark.parametrize("name", zoo.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(zoo, name) is not None


def test_the_public_names_are_these() -> None:
    names = (
        "ZeroShotClassifier ZooError build config convert identify list_models list_pretrained load load_weights loss "
        "preprocess pull push_to_hub read_set registry retrieval_metrics save tokenizer train verify"
    )
    assert sorted(zoo.__all__) == names.split()


def test_what_plugins_export_is_reached_through_zoo() -> None:
    assert {"CLIP", "CustomTextCLIP", "ClipLoss", "CLIPVisionCfg", *zoo.__all__} <= set(dir(zoo))
    for name in zoo.registry().exported_names():
        assert getattr(zoo, name) is zoo.registry().export(name)


UNKNOWN = {"buid": "did you mean 'build'?", "CLIPP": "did you mean 'CLIP'?", "_x": "has no attribute '_x'"}


@pytest.mark.parametrize(("name", "told"), UNKNOWN.items())
def test_an_unknown_public_name_is_answered_with_the_nearest(name: str, told: str) -> None:
    with pytest.raises(AttributeError, match=f"module 'zoo' has no attribute '{name}'") as raised:
        getattr(zoo, name)
    assert told in str(raised.value)


def test_the_root_of_all_errors_is_public() -> None:
    assert zoo.ZooError is ZooError
