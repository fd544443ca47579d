"""Every architecture of open_clip 3.3.0 at full size beside the peer's, with one copy of the weights for both.

Some of each family run with `--slow`, all with `--slow --huge`. What was found is recorded as properties of each test:
`--junitxml=FILE` keeps them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import open_clip
import open_clip.hf_model
import pytest
import timm
import torch
from open_clip.coca_model import CoCa as PeerCoCa
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import zoo
from support.checkpoints.published_encoders import HubConfigs
from support.checkpoints.state_dict_deviations import DEVIATIONS
from support.peer import captions, images, peer_model, randomized
from zoo.catalog.architectures import architectures
from zoo.catalog.state_dict_shapes import shapes_of

TOLERANCE = 1e-5
IN_MEMORY = 12_000_000_000 // 4
"""Parameters in float32 that a test may hold; larger architectures are cut to their first blocks."""
BLOCKS = 12

OF_EACH_FAMILY = {
    "coca_ViT-B-32",
    "convnext_base",
    "EVA02-B-16",
    "MobileCLIP-S1",
    "MobileCLIP2-S0",
    "PE-Core-T-16-384",
    "RN50",
    "roberta-ViT-B-32",
    "swin_base_patch4_window7_224",
    "ViT-B-16-quickgelu",
    "ViT-B-32-SigLIP2-256",
    "ViT-L-14-CLIPA",
    "ViT-L-14-worldwide",
    "ViT-M-16-alt",
    "ViTamin-S",
}
"""One full size of each kind; the others differ in their numbers alone, and wait for `--huge`."""


def names() -> list[Any]:
    return [
        pytest.param(one, marks=() if one in OF_EACH_FAMILY else pytest.mark.huge)
        for one in open_clip.list_models()
        if one not in DEVIATIONS  # its head is another one in the peer: plugins/coca/test_model.py compares tiny copies
    ]


def parameters_of(name: str) -> int:
    return sum(math.prod(shape) for shape in shapes_of(name).values())


class NothingDrawn(TorchDispatchMode):
    """Leaves out random numbers, which take most of the time of building a model whose weights come from elsewhere."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten.normal_.default, torch.ops.aten.uniform_.default):
            return args[0]
        return func(*args, **(kwargs or {}))


def built(make: Callable[[], Any], how: AbstractContextManager[Any]) -> Any:
    with how:
        return make().eval()


@pytest.fixture
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int | None:
    """Return how many blocks of each tower fit into memory, None where all do."""
    monkeypatch.setattr(open_clip.hf_model, "AutoConfig", HubConfigs)
    ours = architectures().find(request.node.callspec.params["name"]).name
    if parameters_of(ours) <= IN_MEMORY:
        return None
    create = timm.create_model  # the peer has no option for the depth
    monkeypatch.setattr(timm, "create_model", lambda *args, **options: create(*args, **{"depth": BLOCKS, **options}))
    return BLOCKS


def the_peers(name: str, blocks: int | None) -> nn.Module:
    config: Any = open_clip.get_model_config(name)
    if "hf_model_name" in config["text_cfg"]:
        config["text_cfg"]["hf_model_pretrained"] = False
        config["custom_text"] = True  # create_model says so too
    if blocks is not None:
        config["text_cfg"]["layers"] = blocks
        if "timm_model_name" not in config["vision_cfg"]:
            config["vision_cfg"]["layers"] = blocks
    if "multimodal_cfg" not in config:
        return peer_model(config)
    del config["custom_text"]
    return PeerCoCa(**config)


def cut(name: str, blocks: int | None) -> list[str]:
    """Return the overrides that leave an architecture of ours only its first blocks."""
    if blocks is None:
        return []
    key = "kwargs.depth" if zoo.config(name).vision.component == "timm" else "layers"
    return [f"vision.{key}={blocks}", f"text.layers={blocks}"]


def farthest(ours: Tensor, theirs: Tensor) -> float:
    """Return the largest difference; of numbers beyond 1, as a share of the largest of them."""
    assert ours.shape == theirs.shape
    return ((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1)).item()


@pytest.mark.slow
@pytest.mark.parametrize("name", names())
def test_the_full_size_gives_the_peers_numbers(
    name: str, blocks: int | None, record_property: Callable[[str, object], None]
) -> None:
    ours_name = architectures().find(name).name
    theirs: Any = randomized(built(lambda: the_peers(name, blocks), NothingDrawn()))
    ours: Any = built(lambda: zoo.build(ours_name, overrides=cut(ours_name, blocks)), NothingDrawn())
    ours.load_state_dict(theirs.state_dict(), assign=True)  # one copy of the weights for both
    image, text = images(ours, 1), captions(ours, 2)
    from_transformers = ours.config.text.component == "hf-text"
    found: dict[str, float] = {}
    with torch.inference_mode():
        options = {"normalize": False}
        mine = ours.forward_intermediates(image, None if from_transformers else text, **options)
        others = theirs.forward_intermediates(image, None if from_transformers else text, **options)
        if (
            from_transformers
        ):  # the peer has no intermediates of it: plugins/hf/test_tower.py compares transformers' own
            # of whole rows: random weights let T5's unscaled attention multiply the rounding that other lengths bring
            mine["text_features"] = ours.text(text)
            others["text_features"] = theirs.encode_text(text)
        assert mine.keys() == others.keys()
        for key in mine:
            pairs = (
                zip(mine[key], others[key], strict=True) if isinstance(mine[key], list) else [(mine[key], others[key])]
            )
            found[key] = max(farthest(*pair) for pair in pairs)
        found |= last_steps(ours, theirs, mine, others, image, text)
    record_property("architecture", ours_name if blocks is None else f"{ours_name}, first {blocks} blocks")
    for key, difference in found.items():
        record_property(key, difference)
    assert {key: value for key, value in found.items() if not value <= TOLERANCE} == {}


def last_steps(ours: Any, theirs: Any, mine: Any, others: Any, image: Tensor, text: Tensor) -> dict[str, float]:
    """Return the differences of what is made of the features: CoCa's captions, the logits of the rest."""
    if isinstance(theirs, PeerCoCa):
        mine, others = ours(image.expand(2, -1, -1, -1), text), theirs(image.expand(2, -1, -1, -1), text)
        return {"caption_logits": farthest(mine["logits"], others["logits"])}
    features = [nn.functional.normalize(others[f"{side}_features"], dim=-1) for side in ("image", "text")]
    logits = theirs.logit_scale.exp() * features[0] @ features[1].T
    if theirs.logit_bias is not None:
        logits = logits + theirs.logit_bias
    features = [nn.functional.normalize(mine[f"{side}_features"], dim=-1) for side in ("image", "text")]
    return {"logits": farthest(ours._logits(*features)[0], logits)}
