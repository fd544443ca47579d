"""From the start of a process to the first features: what is not imported, and what is not computed."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

import zoo
from zoo.materialize.meta_init import SkipInit
from zoo.materialize.skeleton import skeleton
from zoo_text.bpe.tokenizer import Merges

HEAVY = [
    *("huggingface_hub", "httpx", "requests", "filelock", "transformers", "tokenizers", "sentencepiece", "timm"),
    *("torchvision", "open_clip", "scipy", "sklearn", "matplotlib", "pandas", "typer", "rich"),
    *("torch._dynamo", "torch._inductor", "sympy"),
]
"""What the first features need nothing of; torch's own compiler and sympy take longer than all the rest."""

FIRST = """
from PIL import Image
model = zoo.build("digits-tiny", pretrained="demo")
features = model.encode_image(Image.new("RGB", (8, 8)))
assert features.shape == (1, model.config.embed_dim)
"""

TEXT = """
from importlib.resources import files
weights = files("zoo").joinpath("pretrained/digits-tiny-demo.safetensors")
model = zoo.build("digits-tiny", pretrained=str(weights), towers=("text",))
assert model.encode_text("one").shape == (1, model.config.embed_dim)
"""


def imported(program: str, *names: str, after: str = "import zoo") -> list[str]:
    """Return which of the modules `names` a program imports that were not imported before it."""
    told = f"import sys\n{after}\nbefore = set(sys.modules)\n{program}\nprint(*set(sys.argv[1:]) & (set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", told, *names], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_first_features_import_nothing_that_they_do_not_need() -> None:
    assert imported(FIRST, *HEAVY, after="import torch, zoo") == []


def test_a_text_tower_from_a_file_needs_neither_pictures_nor_tables_of_weights_nor_the_hub() -> None:
    others = ("PIL", "omegaconf", "zoo.catalog.pretrained", "zoo_core.hub.files", "zoo.hub.weights")
    assert imported(TEXT, *HEAVY, *others, after="import torch, zoo") == []


def test_names_are_listed_without_pydantic() -> None:
    assert imported("assert 'vit-b16' in zoo.list_models()", "pydantic", "omegaconf", "torch") == []


def test_a_tokenizer_reads_its_merges_with_the_first_caption() -> None:
    tokenizer = zoo.tokenizer("vit-b16")
    fresh = Merges(tokenizer.vocab_size)
    assert "merged" not in vars(fresh)
    assert fresh.encode("photo") == tokenizer.encode("photo")


@pytest.mark.parametrize("name", ["digits-tiny", "rn50", "coca-vit-b32", "vit-b16-siglip"])
def test_a_model_that_is_not_drawn_has_the_tensors_of_one_that_is(name: str) -> None:
    undrawn = skeleton(zoo.config(name))
    with torch.device("meta"):
        drawn = (
            zoo.registry()
            .get("model", zoo.config(name).component)
            .build(zoo.config(name), towers=("image", "text"), registry=zoo.registry())
        )

    def facts(model: Any) -> dict[str, Any]:
        tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        return {key: (one.shape, one.dtype, one.is_meta, one.requires_grad) for key, one in tensors.items()}

    assert facts(undrawn) == facts(drawn)


def test_tensors_elsewhere_are_filled_all_the_same() -> None:
    with torch.device("meta"), SkipInit():
        assert (2 * torch.randn(3)).is_meta
        there = torch.nn.Parameter(torch.zeros(3, device="cpu"))
        torch.nn.init.ones_(there)
        drawn = torch.randn(64, device="cpu")
        counted = torch.arange(3, device="cpu") * 2
    assert there.tolist() == [1, 1, 1]
    assert 0.5 < drawn.std() < 1.5
    assert counted.tolist() == [0, 2, 4]
