"""Half precision on processors that have no instructions for it: told once, and left out of what is optimized."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import zoo
from support.models.families import FAMILIES, pictures, words
from zoo.cli.app import main
from zoo.inference.autotune import optimize_for_inference
from zoo_core.errors import SlowDtypeWarning, ZooWarning
from zoo_core.nn import processors
from zoo_core.nn.inference_forms import WideLinear, forms_of
from zoo_core.nn.processors import lacking_flags, processor_flags

CLIP = FAMILIES["ViT CLIP"].architecture
AVX2 = frozenset({"fpu", "avx", "avx2", "fma"})
MESSAGE = (
    "bfloat16 is several times slower than float32 on this CPU, which has none of the flags avx512_bf16, amx_bf16; "
    'compute in float32 (dtype=torch.float32, --dtype float32), or build with optimize="inference"'
)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> set[torch.dtype]:
    """Let nothing have been said yet, on a processor with AVX2 alone."""
    found: set[torch.dtype] = set()
    monkeypatch.setattr(processors, "_told", found)
    monkeypatch.setattr(processors, "processor_flags", lambda: AVX2)
    monkeypatch.setattr(processors.platform, "machine", lambda: "x86_64")
    return found


@pytest.mark.parametrize(
    ("machine", "flags", "dtype", "lacking"),
    [
        ("x86_64", AVX2, torch.bfloat16, ("avx512_bf16", "amx_bf16")),
        ("AMD64", AVX2 | {"avx512f", "avx512_vnni"}, torch.bfloat16, ("avx512_bf16", "amx_bf16")),
        ("x86_64", AVX2 | {"avx512_bf16"}, torch.bfloat16, ()),
        ("x86_64", AVX2 | {"amx_bf16"}, torch.bfloat16, ()),
        ("x86_64", AVX2 | {"avx512_bf16"}, torch.float16, ("avx512_fp16", "amx_fp16")),
        ("x86_64", AVX2 | {"avx512_fp16"}, torch.float16, ()),
        ("x86_64", AVX2, torch.float32, ()),
        ("x86_64", AVX2, torch.float64, ()),
        ("x86_64", frozenset(), torch.bfloat16, ()),  # a system that does not tell
        ("aarch64", frozenset({"asimd"}), torch.bfloat16, ("bf16",)),
        ("arm64", frozenset({"asimd", "bf16"}), torch.bfloat16, ()),
        ("aarch64", frozenset({"asimd"}), torch.float16, ()),
    ],
)
def test_the_flags_that_lack_are_those_of_the_dtype_and_the_machine(
    machine: str, flags: frozenset[str], dtype: torch.dtype, lacking: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processors, "processor_flags", lambda: flags)
    monkeypatch.setattr(processors.platform, "machine", lambda: machine)
    assert lacking_flags(dtype) == lacking


def test_flags_are_those_that_the_system_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = "processor\t: 0\nflags\t\t: fpu avx2 amx_bf16\n\nprocessor\t: 1\nflags\t\t: fpu avx2 amx_bf16\n"
    for text, flags in ((listed, {"fpu", "avx2", "amx_bf16"}), ("Features\t: fp bf16\n", {"fp", "bf16"}), ("", set())):
        monkeypatch.setattr(Path, "read_text", lambda *args, text=text, **kwargs: text)
        assert processor_flags.__wrapped__() == flags

    def refuse(*args: Any, **kwargs: Any) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", refuse)
    assert processor_flags.__wrapped__() == set()


def test_a_slow_dtype_is_told_once_where_a_model_is_built_or_loaded(told: set[torch.dtype], tmp_path: Path) -> None:
    zoo.build(CLIP)
    zoo.build(CLIP, dtype=torch.float64)
    with pytest.warns(SlowDtypeWarning) as caught:
        zoo.build(CLIP, dtype=torch.bfloat16)
    assert [str(one.message) for one in caught] == [MESSAGE] and issubclass(SlowDtypeWarning, ZooWarning)
    assert caught[0].filename == __file__
    stored = zoo.save(zoo.build(CLIP, dtype=torch.bfloat16), tmp_path / "stored", probe=False)  # nothing is said again
    for call in (lambda: zoo.load(stored), lambda: zoo.build(stored)):  # in the dtype of the weights
        told.clear()
        with pytest.warns(SlowDtypeWarning, match="bfloat16 is several times slower"):
            call()
    with pytest.warns(SlowDtypeWarning, match=r"float16 is .* none of the flags avx512_fp16, amx_fp16"):
        zoo.build(CLIP, dtype=torch.float16)


def test_nothing_is_told_of_other_devices_and_of_processors_that_are_fast(
    told: set[torch.dtype], monkeypatch: pytest.MonkeyPatch
) -> None:
    zoo.build(CLIP, dtype=torch.bfloat16, device="meta")
    monkeypatch.setattr(processors, "processor_flags", lambda: AVX2 | {"avx512_bf16"})
    zoo.build(CLIP, dtype=torch.bfloat16)
    assert not told


def test_the_command_line_tells_it_in_a_line(
    told: set[torch.dtype], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    Image.new("RGB", (30, 30)).save(tmp_path / "a.png")
    command = [
        "classify",
        str(tmp_path / "a.png"),
        "--labels",
        "one,two",
        "--model",
        "digits-tiny",
        "--pretrained",
        "demo",
    ]
    assert main([*command, "--dtype", "bfloat16"]) == 0
    assert MESSAGE in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_inference_multiplies_in_float32_where_that_is_faster(dtype: torch.dtype, told: set[torch.dtype]) -> None:
    linear = nn.Linear(24, 16).to(dtype).requires_grad_(False)
    form = next(one for one in forms_of(linear) if one.name == "multiplied in float32")
    given = torch.randn(5, 24).to(dtype)
    wide, expected = form.make(), copy.deepcopy(linear).double()(given.double())
    assert isinstance(wide, WideLinear)
    assert (wide(given).double() - expected).abs().max() <= expected.abs().max() * torch.finfo(dtype).eps
    assert wide(given).dtype == dtype and list(wide.state_dict()) == ["weight", "bias"]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SlowDtypeWarning)
        model = zoo.build(CLIP, dtype=dtype)
    image, text = pictures(model), words(model)
    with torch.no_grad():
        before = model.encode_image(image), model.encode_text(text)
        optimize_for_inference(model, lambda calls: [2.0, *[1.0] * (len(calls) - 1)])
        after = model.encode_image(image), model.encode_text(text)
    for one, other in zip(before, after, strict=True):
        assert other.dtype == dtype and torch.cosine_similarity(one.float(), other.float()).min() > 0.999


def test_optimized_models_are_told_nothing(
    told: set[torch.dtype], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ZOO_HOME", str(tmp_path))
    zoo.build(CLIP, dtype=torch.bfloat16, optimize="inference")
    assert not told


def test_wide_forms_are_offered_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processors, "processor_flags", lambda: AVX2 | {"avx512_bf16", "avx512_fp16"})
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        assert "multiplied in float32" not in {one.name for one in forms_of(nn.Linear(8, 8).to(dtype))}
