"""What the parts of a plugin promise: whatever they raise or return instead is told with the part's name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import field_validator
from torch import Tensor

import zoo
from support.models.tiny_clip import ARCHITECTURE
from zoo.checkpoints.open import checkpoint_format, open_checkpoint
from zoo_core.boundary.plugin_code import made_by
from zoo_core.checkpoints import CheckpointFormat, ConvertedSource, TensorInfo, TensorSource
from zoo_core.config import TokenizerConfig, VisionTowerConfig
from zoo_core.errors import CheckpointError, InputError, NotFiniteError, PluginError, ZooWarning
from zoo_core.images import Preprocessor
from zoo_core.interfaces import TextTower, VisionTower
from zoo_core.text.tokenizer import Tokenizer

OWNER = "component 'odd' of acme 2.5"


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    return zoo.build(ARCHITECTURE)


def of_acme(kind: Any) -> Any:
    made_by(OWNER, kind)
    return kind


@of_acme
class OddTower(VisionTower):
    image_size = (32, 32)
    output_dim = 16

    def __init__(self, answer: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, image: Tensor) -> Tensor:
        return self.answer(image)

    def forward_tokens(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return self.answer(image)


FEATURES: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "nothing": (lambda image: None, "NoneType"),
    "a tuple": (lambda image: (image.mean((2, 3)), image), "tuple"),
    "another width": (lambda image: torch.zeros(len(image), 17), "torch.float32 [2, 17]"),
    "another batch": (lambda image: torch.zeros(1, 16), "torch.float32 [1, 16]"),
    "whole numbers": (lambda image: torch.zeros(len(image), 16, dtype=torch.int64), "torch.int64 [2, 16]"),
}


@pytest.mark.parametrize(("answer", "found"), FEATURES.values(), ids=FEATURES)
def test_features_that_are_none_name_the_tower(model: Any, answer: Any, found: str) -> None:
    model.visual = OddTower(answer)
    with pytest.raises(PluginError) as raised:
        model.encode_image(torch.zeros(2, 3, 32, 32))
    told = f"{OWNER}: forward must return floating-point features [2, 16], found {found}"
    assert str(raised.value) == told


@of_acme
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_not_finite_name_the_tower_or_the_images(model: Any, value: float) -> None:
    model.visual = OddTower(lambda image: torch.full((len(image), 16), value)).eval()
    with pytest.raises(NotFiniteError, match="forward gave NaN or infinity of finite inputs; compute in float32"):
        model.encode_image(torch.zeros(2, 3, 32, 32))
    with pytest.raises(InputError, match="the images hold NaN or infinity, and so would their features"):
        model.encode_image(torch.full((2, 3, 32, 32), value))
    model.train()  # a loss that is not finite tells as much, and scalers of gradients count on meeting it
    assert not model.encode_image(torch.zeros(2, 3, 32, 32)).isfinite().any()


class OddReader(TextTower):
    context_length, vocab_size, output_dim = 12, 1024, 16
    lengths: Any = None

    def forward(self, text: Tensor) -> Tensor:
        return torch.zeros(len(text), 15)

    def read_lengths(self, text: Tensor) -> Any:
        return self.lengths


def test_a_text_tower_is_held_to_its_width_and_lengths(model: Any) -> None:
    tower = OddReader()
    model.text = tower
    with pytest.raises(PluginError, match=r"forward must return floating-point features \[1, 16\], found .*\[1, 15\]"):
        model.encode_text("a dog")
    tower.lengths = [3]
    with pytest.raises(PluginError, match=r"read_lengths must return numbers \[1\], found list"):
        model.encode_text("a dog")


@of_acme
class OddTokenizer(Tokenizer):
    context_length, vocab_size, sot_id, eot_id, pad_id = 12, 1024, 1022, 1023, 0

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def encode(self, text: str) -> list[int]:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def decode(self, ids: Sequence[int]) -> str:
        return self.answer


IDS: dict[str, tuple[Any, str]] = {
    "nothing": (None, "encode must return a list (each entry a whole number), found None"),
    "a tensor": (torch.zeros(3), "encode must return a list (each entry a whole number"),
    "words": (["a"], "encode must return a list (each entry a whole number"),
    "fractions": ([1.5], "encode must return a list (each entry a whole number"),
    "an error": (KeyError("dog"), "encode failed: KeyError: 'dog'"),
    "none of its ids": ([1024], "it must give int64 ids [N, 12] from 0 to 1023, found ids from 0 to 1024"),
    "below zero": ([-5], "it must give int64 ids [N, 12] from 0 to 1023, found ids from -5 to 1023"),
}


@pytest.mark.parametrize(("answer", "told"), IDS.values(), ids=IDS)
def test_ids_that_are_none_name_the_tokenizer(model: Any, answer: Any, told: str) -> None:
    model.tokenizer = OddTokenizer(answer)
    with pytest.raises(PluginError) as raised:
        model.encode_text("a dog")
    assert str(raised.value).startswith(f"{OWNER}: {told}")
    assert "\n" not in str(raised.value)


def test_what_a_tokenizer_decodes_is_text() -> None:
    with pytest.raises(PluginError, match="decode must return a string, found 5"):
        OddTokenizer(5).decode([1])


@of_acme
class OddPreprocessor(Preprocessor):
    image_size = (32, 32)

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def __call__(self, image: Any) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def collate(self, prepared: Sequence[Any]) -> Any:
        return prepared if self.answer is None else super().collate(prepared)


PICTURES: dict[str, tuple[Any, str]] = {
    "nothing": (None, "it must give floating-point images [1, 3, 32, 32], or patches, found list"),
    "another size": (torch.zeros(3, 31, 32), "it must give floating-point images [1, 3, 32, 32], or patches, found "),
    "raw pixels": (torch.zeros(3, 32, 32, dtype=torch.uint8), "it must give floating-point images"),
    "an error": (AttributeError("mode"), "__call__ failed: AttributeError: mode"),
}


@pytest.mark.parametrize(("answer", "told"), PICTURES.values(), ids=PICTURES)
def test_images_that_are_none_name_the_preprocessor(model: Any, answer: Any, told: str) -> None:
    model.preprocess = OddPreprocessor(answer)
    with pytest.raises(PluginError) as raised:
        model.encode_image("a.png")
    assert str(raised.value).startswith(f"{OWNER}: {told}")


class Told(VisionTowerConfig):
    """A config whose answers are those of the test."""

    tower: str = "odd"
    image_size: Any = (32, 32)

    def parameter_count(self, embed_dim: int) -> Any:
        return "x"

    def takes_patches(self) -> Any:
        return 16

    def token_width(self, embed_dim: int) -> Any:
        raise ZeroDivisionError("width")

    def rules_for(self, embed_dim: int) -> Iterator[Any]:
        yield "no pair"


CONFIG_ANSWERS = {
    "parameter_count": ((16,), "parameter_count must return a whole number of at most 64 bits or None, found 'x'"),
    "takes_patches": ((), "takes_patches must return a tuple of 2 or None, found 16"),
    "token_width": ((16,), "token_width failed: ZeroDivisionError: width"),
    "rules_for": ((16,), "rules_for must yield a tuple of 2, found 'no pair'"),
}


@pytest.mark.parametrize("method", CONFIG_ANSWERS)
def test_what_a_config_tells_is_held_to_its_base(method: str) -> None:
    made_by(OWNER, Told)
    arguments, told = CONFIG_ANSWERS[method]
    with pytest.raises(PluginError) as raised:
        list(getattr(Told(), method)(*arguments))
    assert str(raised.value) == f"{OWNER}: {told}"


class Ruled(TokenizerConfig):
    type: str = "odd"
    name: str = "a"

    def rules(self) -> Iterator[tuple[str, str]]:
        raise LookupError("nothing there")

    def files_key(self) -> object:
        return self.name


class Validated(Ruled):
    @field_validator("name")
    @classmethod
    def _name(cls, name: str) -> str:
        raise TypeError(f"{name} is odd")


def test_rules_and_validators_that_fail_name_the_config() -> None:
    made_by(OWNER, Ruled)
    made_by(OWNER, Validated)
    with pytest.raises(PluginError, match="component 'odd' of acme 2.5: rules failed: LookupError: nothing there"):
        Ruled()
    with pytest.raises(PluginError, match="its config Validated failed: TypeError: b is odd"):
        Validated(name="b")


@of_acme
class OddFormat(CheckpointFormat):
    """A layout that recognises everything, in its own way."""

    name = "odd"

    def __init__(self, steps: Any = (), recognised: Any = True) -> None:
        self.steps, self.recognised = steps, recognised

    def recognises(self, entries: Mapping[str, TensorInfo]) -> bool:
        return self.recognised

    def plan(self, entries: Mapping[str, TensorInfo]) -> Any:
        return self.steps

    def files(self, config: Mapping[str, Any]) -> Any:
        return {"a": config["vision"]["activation"]}


class Step:
    sources, targets = ("a",), ("b",)

    def __init__(self, inferred: Any, applied: Any) -> None:
        self.inferred, self.applied = inferred, applied

    def infer(self, infos: Sequence[TensorInfo]) -> Any:
        return self.inferred

    def apply(self, tensors: Sequence[Tensor]) -> Any:
        return self.applied


class Memory(TensorSource):
    path, container, metadata = Path("a.pt"), "memory", {}

    def __init__(self) -> None:
        self.entries = {"a": TensorInfo("float32", (2,))}

    def read(self, key: str) -> Tensor:
        return torch.zeros(2)


INFO = TensorInfo("float32", (2,))
CONVERSIONS: dict[str, tuple[Any, str]] = {
    "no steps": (5, "plan must return a list or a tuple, found 5"),
    "no infos": ([Step(None, [])], "a conversion does not tell what it makes: TypeError"),
    "too few infos": ([Step([], [])], "a conversion does not tell what it makes: ValueError"),
    "no step": (["a"], "a conversion does not tell what it makes: AttributeError"),
    "no tensors": ([Step([INFO], None)], "the conversion to 'b' failed: TypeError"),
    "too few tensors": ([Step([INFO], [])], "the conversion does not give 'b': IndexError"),
    "another shape": ([Step([INFO], [torch.zeros(3)])], "the conversion does not give 'b': ValueError: expected shape"),
}


@pytest.mark.parametrize(("steps", "told"), CONVERSIONS.values(), ids=CONVERSIONS)
def test_conversions_that_fail_name_the_checkpoint_format(steps: Any, told: str) -> None:
    with pytest.raises(PluginError) as raised:
        ConvertedSource(Memory(), OddFormat(steps)).read("b")
    assert str(raised.value).startswith(f"{OWNER}: {told}")


def test_a_format_that_fails_spoils_no_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(2)}, tmp_path / "a.safetensors")
    odd = OddFormat(recognised="yes")
    monkeypatch.setattr("zoo.checkpoints.open.checkpoint_formats", lambda: iter([("acme/odd", odd)]))
    with pytest.warns(ZooWarning, match="recognises must return True or False, found 'yes'; this checkpoint format is"):
        assert set(open_checkpoint(tmp_path / "a.safetensors").entries) == {"a"}


def test_an_exporter_that_fails_names_its_format() -> None:
    with pytest.raises(PluginError, match="component 'odd' of acme 2.5: files failed: KeyError: 'activation'"):
        OddFormat().files({"vision": {}})


PARTS = {
    "vision": {"tower": "conv-mean", "image_size": [32, 32], "patch_size": 4},
    "text": {"tower": "bag-of-words", "context_length": 12, "vocab_size": 1024},
    "tokenizer": {"type": "bytes"},
    "preprocess": {"type": "crops"},
}


LAYOUTS = ("open-clip", "transformers-clip", "transformers-siglip", "transformers-siglip2")
MET = [(layout, section) for layout in LAYOUTS for section in PARTS if layout == "open-clip" or section != "tokenizer"]


@pytest.mark.parametrize(("layout", "section"), MET)
def test_an_exporter_names_a_component_that_it_does_not_know(layout: str, section: str) -> None:
    config = zoo.config(ARCHITECTURE).data() | {section: PARTS[section]}
    with pytest.raises(CheckpointError) as raised:
        checkpoint_format(layout).files(config)
    assert next(iter(PARTS[section].values())) in str(raised.value)
