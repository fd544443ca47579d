"""The test kit on towers that claim `intermediates` with the three methods that docs/write-a-tower.md shows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from support.models.broken_towers import Plain, PlainConfig
from support.models.declared_towers import stranger
from support.models.tiny_clip import tiny
from zoo_core.config import TextTowerConfig, VisionTowerConfig
from zoo_core.errors import PluginError
from zoo_core.interfaces import TextTower, VisionTower
from zoo_core.registry import Component
from zoo_core.testing import BrokenPromiseError, check_component

GUIDE = Path(__file__).parents[3] / "docs" / "write-a-tower.md"
SNIPPET = re.search(r"```python\n(def num_blocks.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
CLAIM = frozenset({"intermediates"})
VALUES = {"image_size": [8, 12]}


METHODS: dict[str, Any] = {"Tensor": Tensor, "Iterator": Iterator}
assert SNIPPET is not None
exec(SNIPPET[1], METHODS)


class Convolutional(Plain):
    """A stack of convolutions, as in the guide, without the methods that claim `intermediates`."""

    def __init__(self, config: VisionTowerConfig, *, embed_dim: int) -> None:
        super().__init__(config, embed_dim=embed_dim)
        self.stages = nn.ModuleList(nn.Conv2d(before, 6, 3, 2, padding=1) for before in (3, 6))

    def forward(self, image: Tensor) -> Tensor:
        x = image
        for stage in self.stages:
            x = stage(x)
        return self.proj(x.mean(dim=(2, 3)))


class AsDocumented(Convolutional):
    num_blocks = METHODS["num_blocks"]
    forward_blocks = METHODS["forward_blocks"]
    forward_head = METHODS["forward_head"]


class Tokens(Plain):
    """Two linear blocks over patches of 4 x 4 pixels, behind a class token and before a register."""

    num_prefix_tokens = 1
    num_suffix_tokens = 1

    def __init__(self, config: VisionTowerConfig, *, embed_dim: int) -> None:
        super().__init__(config, embed_dim=embed_dim)
        self.patches = nn.Conv2d(3, 6, 4, 4)
        self.blocks = nn.ModuleList(nn.Linear(6, 6) for _ in range(2))

    def forward(self, image: Tensor) -> Tensor:
        *_, last = self.forward_blocks(image)
        return self.forward_head(last, image)

    def num_blocks(self) -> int:
        return 2

    def forward_blocks(self, image: Tensor) -> Iterator[Tensor]:
        x = nn.functional.pad(self.patches(image).flatten(2).transpose(1, 2), (0, 0, 1, 1), value=0.5)
        for block in self.blocks:
            x = block(x).tanh()
            yield x

    def forward_head(self, x: Tensor, image: Tensor) -> Tensor:
        return self.proj(x[:, 0])

    def patch_grid(self, image: Tensor) -> tuple[int, int]:
        return image.shape[2] // 4, image.shape[3] // 4


class NoMaps(Tokens):
    output_formats = ("NLC",)
    patch_grid = VisionTower.patch_grid


class Miscounted(Tokens):
    def num_blocks(self) -> int:
        return 3


class UntoldPrefix(Tokens):
    num_prefix_tokens = 0


class NoGrid(Tokens):
    patch_grid = VisionTower.patch_grid


class OtherHead(Tokens):
    def forward_head(self, x: Tensor, image: Tensor) -> Tensor:
        return super().forward_head(x, image) + 1

    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image) - 1


class Flattened(AsDocumented):
    def forward_blocks(self, image: Tensor) -> Iterator[Tensor]:
        return (output.flatten(1) for output in super().forward_blocks(image))


class MapsWithPrefix(AsDocumented):
    num_prefix_tokens = 1


class NoNumber(AsDocumented):
    def num_blocks(self) -> Any:
        return "2"


class FewBlocks(AsDocumented):
    def num_blocks(self) -> int:
        return 3


class NoTensors(AsDocumented):
    def forward_blocks(self, image: Tensor) -> Any:
        return [[1], [2]]


class OneRow(AsDocumented):
    def forward_blocks(self, image: Tensor) -> Iterator[Tensor]:
        return (output[:1] for output in super().forward_blocks(image))


class InPlace(AsDocumented):
    def forward_blocks(self, image: Tensor) -> Iterator[Tensor]:
        first, second = super().forward_blocks(image)
        yield first
        first.zero_()
        yield second


class NormOfTokens(AsDocumented):
    def final_norm(self) -> Any:
        return nn.LayerNorm(6)


class NoNorm(AsDocumented):
    def final_norm(self) -> Any:
        return None


class NegativePrefix(Tokens):
    num_prefix_tokens = -1


class LongPrefix(Tokens):
    num_prefix_tokens = 3


class OtherGrid(Tokens):
    def patch_grid(self, image: Tensor) -> tuple[int, int]:
        return 3, 3


class NoPair(Tokens):
    def patch_grid(self, image: Tensor) -> Any:
        return 2, 3, 1


class NarrowHead(AsDocumented):
    def forward_head(self, x: Tensor, image: Tensor) -> Tensor:
        return super().forward_head(x, image)[:, :1]


class NoOutputs(AsDocumented):
    def run_blocks(self, image: Tensor, options: Any) -> Any:
        return [image]


class ListOfBlocks(AsDocumented):
    def forward_intermediates(self, x: Tensor, **options: Any) -> Any:
        return list(self.forward_blocks(x))


class OtherFormat(AsDocumented):
    def forward_intermediates(self, x: Tensor, **options: Any) -> Any:
        options["output_fmt"] = "NLC"
        return super().forward_intermediates(x, **options)


class NoHead(AsDocumented):
    forward_head = VisionTower.forward_head


class WordsConfig(TextTowerConfig):
    tower: str = "plain"
    context_length: int = 4
    vocab_size: int = 9


class Words(TextTower):
    """An embedding and one block, with one register before the text."""

    num_prefix_tokens = 1
    registers = 1

    def __init__(self, config: WordsConfig, *, embed_dim: int) -> None:
        super().__init__()
        self.context_length, self.vocab_size = config.context_length, config.vocab_size
        self.output_dim = embed_dim
        self.embedding = nn.Embedding(config.vocab_size, embed_dim)
        self.block = nn.Linear(embed_dim, embed_dim)

    def forward(self, text: Tensor) -> Tensor:
        *_, last = self.forward_blocks(text)
        return self.forward_head(last, text)

    def num_blocks(self) -> int:
        return 1

    def forward_blocks(self, text: Tensor) -> Iterator[Tensor]:
        yield self.block(nn.functional.pad(self.embedding(text), (0, 0, self.registers, 0)))

    def forward_head(self, x: Tensor, text: Tensor) -> Tensor:
        return x[:, -1]


class TwoRegisters(Words):
    registers = 2


def words(factory: type) -> Component:
    return stranger(factory, WordsConfig, CLAIM, "text-tower")


def test_the_guide_claims_intermediates_in_ten_lines_at_the_most() -> None:
    assert SNIPPET is not None
    assert len([line for line in SNIPPET[1].splitlines() if line.strip()]) <= 10


@pytest.mark.parametrize("factory", [AsDocumented, Tokens, NoMaps])
def test_a_vision_tower_that_yields_its_blocks_passes(factory: type) -> None:
    check_component(stranger(factory, capabilities=CLAIM), VALUES)


def test_a_text_tower_that_yields_its_blocks_passes() -> None:
    check_component(words(Words), {})


def test_the_documented_tower_gives_maps_and_tokens_of_the_blocks_that_it_is_asked_for() -> None:
    torch.manual_seed(0)
    tower = AsDocumented(PlainConfig(image_size=(8, 12)), embed_dim=5).eval()
    image = torch.randn(2, 3, 8, 12)
    first = tower.stages[0](image)
    second = tower.stages[1](first)
    output = tower.forward_intermediates(image, indices=[-1, 0])
    assert [*output] == ["image_intermediates", "image_features"]
    torch.testing.assert_close(output["image_intermediates"], [first, second], rtol=0, atol=0)
    torch.testing.assert_close(output["image_features"], tower(image), rtol=0, atol=0)
    (tokens,) = tower.forward_intermediates(image, indices=1, output_fmt="NLC")["image_intermediates"]
    torch.testing.assert_close(tokens, second.flatten(2).transpose(1, 2), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("component", "sentence"),
    [
        (stranger(Convolutional, capabilities=CLAIM), "but: Convolutional does not claim 'intermediates'"),
        (stranger(NoHead, capabilities=CLAIM), "but: NoHead does not claim 'intermediates'"),
        (stranger(AsDocumented), "does not claim 'intermediates', but offers it"),
        (stranger(Miscounted, capabilities=CLAIM), "num_blocks() is 3, but forward_blocks yields 2 outputs"),
        (
            stranger(Flattened, capabilities=CLAIM),
            "forward_blocks must yield [2, C, h, w] or [2, N, C], found [2, 144]",
        ),
        (
            stranger(UntoldPrefix, capabilities=CLAIM),
            "forward_blocks yields 8 tokens for 6 patches of patch_grid() (2 x 3), but num_prefix_tokens is 0 and "
            "num_suffix_tokens is 1",
        ),
        (
            stranger(MapsWithPrefix, capabilities=CLAIM),
            "forward_blocks yields maps, beside which there are no prefix or suffix tokens",
        ),
        (stranger(NoGrid, capabilities=CLAIM), "the tokens of NoGrid make no map: ask for image_output_fmt='NLC'"),
        (
            stranger(OtherHead, capabilities=CLAIM),
            "the features of forward_intermediates are not those of forward",
        ),
        (stranger(NoTensors, capabilities=CLAIM), "forward_blocks must yield tensors, found list"),
        (stranger(InPlace, capabilities=CLAIM), "a block changes the output of an earlier one in place"),
        (stranger(NormOfTokens, capabilities=CLAIM), "the norm of final_norm() does not take the outputs of blocks"),
        (stranger(NoPair, capabilities=CLAIM), "patch_grid must return rows and columns, found (2, 3, 1)"),
        (words(TwoRegisters), "forward_blocks yields 6 tokens for 4 token ids, but num_prefix_tokens is 1"),
    ],
    ids=lambda value: "" if isinstance(value, Component) else value,
)
def test_blocks_that_are_not_what_the_tower_says_are_named(component: Component, sentence: str) -> None:
    with pytest.raises(BrokenPromiseError) as raised:
        check_component(component, {} if component.spec.kind == "text-tower" else VALUES)
    assert sentence in str(raised.value)


@pytest.mark.parametrize(
    ("factory", "options", "promise"),
    [
        (NoNumber, {}, "num_blocks must return a whole number from 1, found '2'"),
        (FewBlocks, {}, "num_blocks() is 3, but forward_blocks yields 2 outputs"),
        (NoTensors, {}, "forward_blocks must yield [2, C, h, w] or [2, N, C], found list"),
        (Flattened, {}, "forward_blocks must yield [2, C, h, w] or [2, N, C], found [2, 144]"),
        (OneRow, {}, "forward_blocks must yield [2, C, h, w] or [2, N, C], found [1, 6, 4, 6]"),
        (MapsWithPrefix, {}, "forward_blocks yields maps, beside which there are no prefix or suffix tokens"),
        (NegativePrefix, {}, "forward_blocks yields 8 tokens, but num_prefix_tokens is -1 and num_suffix_tokens is 1"),
        (LongPrefix, {}, "its blocks give 4 patches, patch_grid 2 x 3, where num_prefix_tokens is 3"),
        (OtherGrid, {}, "its blocks give 6 patches, patch_grid 3 x 3, where num_prefix_tokens is 1"),
        (NoPair, {}, "patch_grid must return rows and columns, found (2, 3, 1)"),
        (NoNorm, {"normalize_intermediates": True}, "final_norm must return a norm, found NoneType"),
        (
            NarrowHead,
            {},
            "forward_intermediates must return floating-point features [2, 5], found torch.float32 [2, 1]",
        ),
        (NoOutputs, {}, "run_blocks must return BlockOutputs of 2 blocks"),
        (ListOfBlocks, {}, "forward_intermediates must return a list 'image_intermediates' in a dict, found list"),
        (
            OtherFormat,
            {},
            "forward_intermediates must return floating-point [2, C, h, w], found torch.float32 [2, 24, 6]",
        ),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_a_model_names_the_promise_of_its_tower_that_intermediates_break(
    factory: Any, options: dict[str, Any], promise: str
) -> None:
    model = tiny()
    model.visual = factory(PlainConfig(image_size=(8, 12)), embed_dim=5)
    with pytest.raises(PluginError) as raised:
        model.forward_intermediates(image=torch.zeros(2, 3, 8, 12), **options)
    assert promise in str(raised.value)
