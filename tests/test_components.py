"""The test kit: zoo's own towers keep every promise, and a tower that breaks one is told which."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from zoo_core.config import Config, Size, VisionTowerConfig
from zoo_core.interfaces import VisionTower
from zoo_core.plugin import ComponentSpec
from zoo_core.registry import Component, Plugin, Registry, default_registry
from zoo_core.testing import BrokenPromiseError, check_component, check_config, check_plugin

SMALL = {
    "vit": [
        {"image_size": [16, 24], "patch_size": 8, "width": 16, "layers": 3, "head_width": 8},
        {"image_size": 16, "patch_size": 8, "width": 16, "layers": 2, "head_width": 16, "ls_init_value": 0.1},
        {"image_size": 32, "patch_size": 8, "width": 16, "layers": 2, "head_width": 16, "patch_dropout": 0.5},
    ],
    "clip-transformer": [
        {"context_length": 8, "vocab_size": 50, "width": 16, "layers": 3, "heads": 2},
        {
            "context_length": 5,
            "vocab_size": 3,
            "width": 8,
            "layers": 2,
            "heads": 1,
            "activation": "quick_gelu",
        },
    ],
}
"""Tiny configs of the towers that come with zoo."""

TOWERS = [one for one in default_registry().components() if one.spec.kind.endswith("-tower")]
OTHERS = [one for one in default_registry().components() if one not in TOWERS and one.spec.kind != "model"]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def own(components: list[Component]) -> list[Component]:
    return [one for one in components if one.plugin.belongs_to("clip-zoo")]


def test_every_tower_of_zoo_has_a_tiny_config_here() -> None:
    assert {one.spec.name for one in own(TOWERS)} == set(SMALL)


@pytest.mark.parametrize(
    ("tower", "values"),
    [pytest.param(one, values, id=one.spec.name) for one in own(TOWERS) for values in SMALL[one.spec.name]],
)
def test_every_tower_of_zoo_keeps_every_promise(tower: Component, values: dict[str, object]) -> None:
    check_component(tower, values)


@pytest.mark.parametrize("component", own(OTHERS), ids=lambda one: f"{one.spec.kind} {one.spec.name}")
def test_every_other_part_of_zoo_has_a_config_that_is_plain_data(component: Component) -> None:
    assert check_config(component, {}).component == component.spec.name


def test_the_plugins_of_zoo_are_light_and_their_architectures_valid() -> None:
    assert {one.spec.name for one in check_plugin("clip_zoo")} >= {*SMALL, "clip", "custom-text-clip"}


class PlainConfig(VisionTowerConfig):
    tower: str = "plain"
    image_size: Size = (8, 8)

    def parameter_count(self, embed_dim: int) -> int | None:
        return None


class Plain(VisionTower):
    """A tower of one layer that claims nothing and keeps its promises."""

    def __init__(self, config: VisionTowerConfig, *, embed_dim: int) -> None:
        super().__init__()
        self.image_size = config.image_size
        self.output_dim = embed_dim
        self.proj = nn.Linear(6, embed_dim)

    def forward(self, image: Tensor) -> Tensor:
        means = image.mean(dim=(2, 3))
        return self.proj(torch.cat([means, image.amax(dim=(2, 3))], dim=-1))


class Counting(PlainConfig):
    def parameter_count(self, embed_dim: int) -> int | None:
        return 3


class Misnamed(PlainConfig):
    tower: str = "other"


class Forgetful(PlainConfig):
    def data(self) -> dict[str, object]:
        return {"image_size": [9, 9]}


class Unplain(PlainConfig):
    def data(self) -> dict[str, object]:
        return {"image_size": torch.tensor(8)}


class OfNoKind(Config):
    tower: str = "plain"


class NoTower(nn.Linear):
    def __init__(self, config: object, *, embed_dim: int) -> None:
        super().__init__(1, embed_dim)


class Narrow(Plain):
    def __init__(self, config: VisionTowerConfig, *, embed_dim: int) -> None:
        super().__init__(config, embed_dim=embed_dim)
        self.output_dim = embed_dim + 1


class Resized(Plain):
    def __init__(self, config: VisionTowerConfig, *, embed_dim: int) -> None:
        super().__init__(config, embed_dim=embed_dim)
        self.image_size = (3, 3)


class Eager(Plain):
    def __init__(self, config: VisionTowerConfig, *, embed_dim: int) -> None:
        super().__init__(config, embed_dim=embed_dim)
        self.proj.weight = nn.Parameter(torch.zeros(embed_dim, 6, device="cpu"))


class Uninitialised(Plain):
    def __init__(self, config: VisionTowerConfig, *, embed_dim: int) -> None:
        super().__init__(config, embed_dim=embed_dim)
        self.proj.weight = nn.Parameter(torch.empty(embed_dim, 6))


class Unseeded(Plain):
    def __init__(self, config: VisionTowerConfig, *, embed_dim: int) -> None:
        super().__init__(config, embed_dim=embed_dim)
        self.register_buffer("noise", torch.tensor(int.from_bytes(os.urandom(4))))


class Meddling(Plain):
    def __init__(self, config: VisionTowerConfig, *, embed_dim: int) -> None:
        super().__init__(config, embed_dim=embed_dim)
        torch.set_float32_matmul_precision("medium")


class Flat(Plain):
    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image).flatten()


class Infinite(Plain):
    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image) / 0


class InPlace(Plain):
    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image.mul_(0.5))


class Dropping(Plain):
    def forward(self, image: Tensor) -> Tensor:
        return nn.functional.dropout(super().forward(image))


class Mixing(Plain):
    def forward(self, image: Tensor) -> Tensor:
        features = super().forward(image)
        return features + features.sum(dim=0)


class SinglePrecision(Plain):
    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image).float()


class Mismatched(Plain):
    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image.float())


class Tied(Plain):
    def __init__(self, config: VisionTowerConfig, *, embed_dim: int) -> None:
        super().__init__(config, embed_dim=embed_dim)
        self.again = self.proj


class HiddenState(Plain):
    def __init__(self, config: VisionTowerConfig, *, embed_dim: int) -> None:
        super().__init__(config, embed_dim=embed_dim)
        self.offset = torch.randn(embed_dim)

    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image) + self.offset.to(image.dtype)


class ForgottenBySetstate(Plain):
    def __setstate__(self, state: dict[str, object]) -> None:
        super().__setstate__(state)
        self.proj = nn.Linear(6, self.output_dim)


class GivesTokens(Plain):
    def forward_tokens(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return self(image), image.flatten(2)


class OtherFeatures(Plain):
    def forward_tokens(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return self(image) + 1, image.flatten(2)


class WrongRefusal(Plain):
    def forward_tokens(self, image: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError("not yet")


class FeaturesOnly(Plain):
    def forward_intermediates(self, image: Tensor, **options: object) -> dict[str, object]:
        return {"image_features": self(image)}


class Diverging(Plain):
    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image) * (float("nan") if self.training else 1)


class TwiceGrouped(Plain):
    def layer_groups(self) -> list[list[nn.Parameter]]:
        return [[self.proj.bias], [self.proj.bias]]


class HalfGrouped(Plain):
    def __init__(self, config: VisionTowerConfig, *, embed_dim: int) -> None:
        super().__init__(config, embed_dim=embed_dim)
        self.scale = nn.Parameter(torch.ones(embed_dim))

    def layer_groups(self) -> list[list[nn.Parameter]]:
        return [[self.proj.bias], [self.proj.weight]]


class SilentCheckpointing(Plain):
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        pass


class SaysVariable(Plain):
    variable_image_size = True


def stranger(
    factory: type = Plain,
    config: type = PlainConfig,
    capabilities: frozenset[str] = frozenset(),
    kind: str = "vision-tower",
) -> Component:
    """Declare a tower of this file as a plugin would."""
    spec = ComponentSpec(
        kind=kind,
        name="plain",
        config=f"{__name__}:{config.__name__}",
        factory=f"{__name__}:{factory.__name__}",
        capabilities=capabilities,
    )
    return Component(spec, Plugin("towers", "acme.plugin", "acme", "1.0", components=(spec,)))


def test_a_tower_that_claims_nothing_and_keeps_its_promises_passes() -> None:
    check_component(stranger(), {"image_size": 8})


def test_a_config_object_is_taken_as_it_is() -> None:
    check_component(stranger(), PlainConfig())


BROKEN = {
    "config base": (stranger(config=OfNoKind), "must derive from zoo_core.config.VisionTowerConfig"),
    "selector": (stranger(config=Misnamed), "'tower' of Misnamed must default to 'plain', found 'other'"),
    "round trip": (stranger(config=Forgetful), "its config does not come back from data()"),
    "plain data": (stranger(config=Unplain), "data() of its config is not plain data"),
    "count": (stranger(config=Counting), "parameter_count() tells 3, but the tower has 112 parameters"),
    "interface": (stranger(NoTower), "its factory must return a VisionTower, found NoTower"),
    "width": (stranger(Narrow), "output_dim of the tower must be 16, found 17"),
    "image size": (stranger(Resized), "image_size of the tower must be (8, 8), found (3, 3)"),
    "meta": (stranger(Eager), "parameter 'proj.weight' takes memory when built under torch.device('meta')"),
    "memory": (stranger(Uninitialised), "'proj.weight' is left uninitialised, or NaN"),
    "seed": (stranger(Unseeded), "'noise' differs between two builds from one seed"),
    "settings": (
        stranger(Meddling),
        "building it changes the float32 matmul precision from highest to medium",
    ),
    "shape": (
        stranger(Flat),
        "forward of 0 rows must return floating-point features [0, 16], found torch.float32 [0]",
    ),
    "finite": (stranger(Infinite), "forward of 1 rows returns values that are not finite"),
    "in place": (stranger(InPlace), "forward changes its input in place"),
    "evaluation": (stranger(Dropping), "gives another result the second time"),
    "rows": (stranger(Mixing), "the feature of a row depends on the other rows of the batch"),
    "half": (stranger(SinglePrecision), "its features in bfloat16 come as torch.float32"),
    "half matrices": (stranger(Mismatched), "it cannot run in bfloat16: "),
    "state": (stranger(Tied), "its state dict cannot be saved and loaded: "),
    "buffers": (stranger(HiddenState), "a tower that loads its state dict gives other features"),
    "copies": (stranger(ForgottenBySetstate), "its deep copy gives other features"),
    "unclaimed": (stranger(GivesTokens), "does not claim 'tokens', but offers it"),
    "refusal": (
        stranger(WrongRefusal),
        "must refuse 'tokens' with a CapabilityError, found NotImplementedError",
    ),
    "gradients": (stranger(Diverging), "gradients that are not finite"),
    "attribute": (
        stranger(SaysVariable),
        "does not claim 'variable-image-size', but variable_image_size of the tower is True",
    ),
}
"""Component -> the sentence that tells what is broken."""

UNKEPT = {
    "tokens": (Plain, "claims 'tokens', but: Plain does not claim 'tokens'"),
    "other features": (OtherFeatures, "the features of forward_tokens are not those of forward"),
    "intermediates": (
        FeaturesOnly,
        "forward_intermediates must return 'image_intermediates', found ['image_features']",
    ),
    "locking": (Plain, "claims 'locking', but: Plain does not claim 'locking'"),
    "more groups": (
        TwiceGrouped,
        "each layer group must unlock more parameters than the last, found [16, 16]",
    ),
    "all groups": (HalfGrouped, "its layer groups leave some parameters out"),
    "gradient-checkpointing": (
        SilentCheckpointing,
        "gradient checkpointing keeps as many activations as without",
    ),
    "variable-image-size": (
        Plain,
        "claims 'variable-image-size', but variable_image_size of the tower is False",
    ),
    "variable-text-length": (Plain, "claims 'variable-text-length', which only a text-tower can"),
}
"""Capability (or a word for it) -> tower that claims it, and the sentence."""
CLAIMS = {"other features": "tokens", "more groups": "locking", "all groups": "locking"}


@pytest.mark.parametrize(("component", "sentence"), BROKEN.values(), ids=BROKEN)
def test_a_broken_promise_is_named(component: Component, sentence: str) -> None:
    precision = torch.get_float32_matmul_precision()
    try:
        with pytest.raises(BrokenPromiseError) as raised:
            check_component(component, {"image_size": 8})
    finally:
        torch.set_float32_matmul_precision(precision)
    assert sentence in str(raised.value)
    assert "vision-tower 'plain' of acme 1.0" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("word", UNKEPT)
def test_a_claim_that_is_not_kept_is_named(word: str) -> None:
    tower, sentence = UNKEPT[word]
    component = stranger(tower, capabilities=frozenset({CLAIMS.get(word, word)}))
    with pytest.raises(AssertionError) as raised:
        check_component(component, {"image_size": 8})
    assert sentence in str(raised.value)


def test_the_check_leaves_no_trace_in_the_process() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    check_component(stranger(), {"image_size": 8})
    assert torch.equal(torch.rand(1), expected)
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_plugin_whose_light_module_imports_a_heavy_package_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "timm.py").touch()
    (tmp_path / "acme_heavy.py").write_text("import timm\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry([Plugin("towers", "acme_heavy", "acme", "1.0")])
    with pytest.raises(BrokenPromiseError, match=r"plugin towers \(acme 1.0\): acme_heavy imports timm"):
        check_plugin("acme", registry)


def test_a_quarantined_plugin_is_told_with_its_reason() -> None:
    registry = Registry([Plugin("towers", "acme", "acme", "1.0", error="RuntimeError: no licence")])
    with pytest.raises(BrokenPromiseError, match="is quarantined: RuntimeError: no licence"):
        check_plugin("Acme", registry)


def test_a_distribution_without_plugins_is_told() -> None:
    with pytest.raises(BrokenPromiseError, match="acme declares no plugin; it needs an entry point"):
        check_plugin("acme", Registry([]))


def test_an_architecture_that_is_wrong_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "acme_yaml"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "acme-net.yaml").write_text("model: clop\n")
    monkeypatch.syspath_prepend(tmp_path)
    plugin = Plugin("towers", "acme_yaml", "acme", "1.0", architectures="acme_yaml")
    registry = Registry([*default_registry().plugins, plugin])
    with pytest.raises(
        BrokenPromiseError, match=r"architecture 'acme-net' of towers .*: model: unknown model 'clop'"
    ):
        check_plugin("acme", registry)
