"""Our models against open_clip 3.3.0: the same weights give the same numbers, in each architecture of both.

Weights are shared through state dicts, loaded strictly in both directions. The default run takes scaled-down
twins (see `peer.py`); `test_full_size.py` takes the full sizes.
"""

from __future__ import annotations

import itertools
from typing import Any

import open_clip
import pytest
import torch
from torch import nn

import zoo
from support.peer import (
    LAYERS,
    captions,
    gradients,
    images,
    our_text,
    our_vision,
    peer_config,
    peer_model,
    peer_names,
    published,
    small_pair,
    tiny_arguments,
    twins,
)
from zoo import CLIP, ClipLoss, CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP
from zoo.catalog.architectures import architectures

NAMES = sorted(peer_names())
TOLERANCE = 1e-5

MODES = (torch.enable_grad, torch.inference_mode)
"""The peer takes other kernels for images where no gradient is asked for; users do both."""


def same(ours: Any, theirs: Any) -> None:
    """Hold numbers, or nests of lists and dicts of them, to the tolerance; every element, absolutely."""
    torch.testing.assert_close(ours, theirs, rtol=0, atol=TOLERANCE)


@pytest.fixture(scope="module", params=NAMES)
def pair(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    return small_pair(request.param)


@pytest.fixture(scope="module", params=[CLIP, CustomTextCLIP], ids=["CLIP", "CustomTextCLIP"])
def tiny(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """Return twins of each class, with a logit bias and LayerScale."""
    return tiny_pair(request.param, init_logit_bias=-3.0)


def tiny_pair(kind: type[nn.Module], **changes: Any) -> tuple[Any, Any]:
    arguments = tiny_arguments(**changes)
    arguments["vision_cfg"]["ls_init_value"] = arguments["text_cfg"]["ls_init_value"] = 0.1
    return twins(kind(**arguments), getattr(open_clip, kind.__name__)(**arguments))


# Architectures


def test_all_of_the_peers_architectures_with_native_towers_are_offered() -> None:
    configs = {name: open_clip.get_model_config(name) or {} for name in open_clip.list_models()}
    native = {
        name
        for name, config in configs.items()
        if "multimodal_cfg" not in config
        and "timm_model_name" not in config["vision_cfg"]
        and "hf_model_name" not in config["text_cfg"]
    }
    assert native == set(peer_names().values())


@pytest.mark.parametrize("name", NAMES)
def test_the_config_holds_the_peers_value_in_every_field(name: str) -> None:
    config: Any = zoo.config(name)
    theirs = peer_config(name)
    quick_gelu = theirs.pop("quick_gelu", False)
    assert config.embed_dim == theirs.pop("embed_dim")
    assert config.vision == type(config.vision)(**our_vision(theirs.pop("vision_cfg"), quick_gelu))
    assert config.text == CLIPTextCfg(**our_text(theirs.pop("text_cfg"), quick_gelu))
    assert config.model == ("custom-text-clip" if theirs.pop("custom_text", False) else "clip")
    assert config.init_logit_bias == theirs.pop("init_logit_bias", None)
    assert not theirs, "a key of the peer's JSON that nothing here looked at"


@pytest.fixture
def nothing_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out initialisation, which takes most of the time of building a model without memory."""
    for name in (
        "normal_",
        "uniform_",
        "zeros_",
        "ones_",
        "constant_",
        "kaiming_uniform_",
        "xavier_uniform_",
    ):
        monkeypatch.setattr(nn.init, name, lambda tensor, *_, **__: tensor)


@pytest.mark.usefixtures("nothing_is_drawn")
@pytest.mark.parametrize("name", NAMES)
def test_parameters_have_the_peers_names_shapes_and_number(name: str) -> None:
    config: Any = zoo.config(name)
    ours = on_meta(config)
    with torch.device("meta"):
        theirs = peer_model(peer_config(name))
    assert shapes(ours) == shapes(theirs)
    count = sum(parameter.numel() for parameter in theirs.parameters())
    assert config.parameter_count() == count == sum(parameter.numel() for parameter in ours.parameters())


def on_meta(config: Any) -> Any:
    with torch.device("meta"):
        kind = CustomTextCLIP if config.model == "custom-text-clip" else CLIP
        return kind(config.embed_dim, config.vision, config.text, init_logit_bias=config.init_logit_bias).eval()


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in model.state_dict().items()}


# Scaled-down twins


def test_our_state_dict_loads_into_the_peer_and_theirs_into_ours(pair: tuple[Any, Any]) -> None:
    ours, theirs = pair
    assert ours.load_state_dict(theirs.state_dict()) == theirs.load_state_dict(ours.state_dict())
    assert set(ours.state_dict()) == set(theirs.state_dict())
    for key, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[key], value), key


def test_image_features_are_the_peers(pair: tuple[Any, Any]) -> None:
    ours, theirs = pair
    image = images(ours)
    for mode in MODES:
        with mode():
            same(ours.encode_image(image), theirs.encode_image(image))
            same(ours.encode_image(image, normalize=True), theirs.encode_image(image, normalize=True))


def test_text_features_are_the_peers(pair: tuple[Any, Any]) -> None:
    ours, theirs = pair
    text = captions(ours)
    for mode in MODES:
        with mode():
            same(ours.encode_text(text), theirs.encode_text(text))
            same(ours.encode_text(text, normalize=True), theirs.encode_text(text, normalize=True))


def test_forward_and_logits_are_the_peers(pair: tuple[Any, Any]) -> None:
    ours, theirs = pair
    image, text = images(ours, 3), captions(ours, 4)
    for mode in MODES:
        with mode():
            same(ours(image, text), theirs(image, text))
            same(ours.get_logits(image, text), theirs.get_logits(image, text))


def test_every_block_of_both_towers_gives_what_the_peers_gives(pair: tuple[Any, Any]) -> None:
    ours, theirs = pair
    image, text = images(ours), captions(ours)
    residual = ours.config.vision.component == "modified-resnet"
    options: dict[str, Any] = {"image_output_extra_tokens": not residual, "normalize": False}
    for mode in MODES:
        with mode():
            found = ours.forward_intermediates(image, text, **options)
            assert len(found["image_intermediates"]) == (5 if residual else LAYERS)
            assert len(found["text_intermediates"]) == LAYERS
            same(found, theirs.forward_intermediates(image, text, **options))


def test_the_activation_is_felt() -> None:
    """The tolerance tells the activations apart, so that a twin with the wrong one would not pass."""
    ours, theirs = small_pair("vit-b32")
    wrong, _ = small_pair("vit-b32", "vision.activation=quick_gelu", "text.activation=quick_gelu")
    image, text = images(ours), captions(ours)
    with torch.inference_mode():
        assert (wrong.encode_image(image) - theirs.encode_image(image)).abs().max() > 100 * TOLERANCE
        assert (wrong.encode_text(text) - theirs.encode_text(text)).abs().max() > 100 * TOLERANCE


# Every option of forward, in both classes


def test_forward_takes_either_input_alone(tiny: tuple[Any, Any]) -> None:
    ours, theirs = tiny
    image, text = images(ours), captions(ours)
    for arguments in ((image, None), (None, text), (image, text)):
        for output_dict in (False, True):
            ours.output_dict = theirs.output_dict = output_dict
            found, expected = ours(*arguments), theirs(*arguments)
            assert type(found) is type(expected)
            if output_dict:
                assert list(found) == list(expected)
                found, expected = tuple(found.values()), tuple(expected.values())
            assert len(found) == len(expected) == 4
            for one, other in zip(found, expected, strict=True):
                assert (one is None) == (other is None)
                if other is not None:
                    same(one, other)
    ours.output_dict = theirs.output_dict = False


def test_intermediates_agree_under_every_combination_of_options(tiny: tuple[Any, Any]) -> None:
    ours, theirs = tiny
    image, text = images(ours), captions(ours)
    switches = (
        "normalize",
        "normalize_intermediates",
        "intermediates_only",
        "image_output_extra_tokens",
        "text_output_extra_tokens",
        "output_logits",
        "output_logit_scale_bias",
    )
    for fmt, *values in itertools.product(("NCHW", "NLC"), *[(False, True)] * len(switches)):
        options = dict(zip(switches, values, strict=True))
        found = ours.forward_intermediates(image, text, image_output_fmt=fmt, **options)
        expected = theirs.forward_intermediates(image, text, image_output_fmt=fmt, **options)
        if not options["normalize"]:  # logits of raw features near 100: an ulp there is the tolerance of all others
            for key in ("image_logits", "text_logits"):
                if key in expected:
                    torch.testing.assert_close(found.pop(key), expected.pop(key), rtol=1e-6, atol=TOLERANCE)
        same(found, expected)


INDICES = (None, 1, 2, 3, [0], [0, 2], [2, 0], (1, 1), [-1], [-3, -1], [-1, 0])


@pytest.mark.parametrize("indices", INDICES, ids=repr)
def test_indices_pick_the_peers_blocks(tiny: tuple[Any, Any], indices: Any) -> None:
    ours, theirs = tiny
    image, text = images(ours), captions(ours)
    for only, early in ((False, False), (True, False), (True, True)):
        options: dict[str, Any] = {
            "image_indices": indices,
            "text_indices": indices,
            "intermediates_only": only,
            "stop_early": early,
        }
        same(
            ours.forward_intermediates(image, text, **options),
            theirs.forward_intermediates(image, text, **options),
        )


def test_intermediates_take_either_input_alone(tiny: tuple[Any, Any]) -> None:
    ours, theirs = tiny
    for arguments in ({"image": images(ours)}, {"text": captions(ours)}):
        same(ours.forward_intermediates(**arguments), theirs.forward_intermediates(**arguments))


def test_stopping_early_never_changes_a_feature(tiny: tuple[Any, Any]) -> None:
    """The peer's image features would come from the last wanted block, which is no feature."""
    ours, _ = tiny
    image, text = images(ours), captions(ours)
    options: dict[str, Any] = {"image_indices": [0], "text_indices": [0], "normalize": False}
    found = ours.forward_intermediates(image, text, stop_early=True, **options)
    same(found["image_features"], ours.encode_image(image))
    same(found["text_features"], ours.encode_text(text))


# Training


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointed"])
@pytest.mark.parametrize("kind", [CLIP, CustomTextCLIP], ids=["CLIP", "CustomTextCLIP"])
def test_one_backward_gives_the_peers_gradients(kind: type[nn.Module], checkpointing: bool) -> None:
    ours, theirs = tiny_pair(kind)
    ours.set_grad_checkpointing(checkpointing)
    image, text = images(ours, 4), captions(ours, 4)
    mine = ClipLoss()(*ours.train()(image, text))
    other = open_clip.ClipLoss()(*theirs.train()(image, text))
    same(mine, other)
    mine.backward()
    other.backward()
    assert gradients(ours).keys() == gradients(theirs).keys()
    assert all(gradient is not None and gradient.any() for gradient in gradients(ours).values())
    same(gradients(ours), gradients(theirs))


@pytest.mark.parametrize("unlocked", range(6))
def test_locked_towers_train_the_parameters_that_the_peers_train(tiny: tuple[Any, Any], unlocked: int) -> None:
    ours, theirs = tiny
    try:
        for model in (ours, theirs):
            model.lock_image_tower(unlocked_groups=unlocked)
            model.lock_text_tower(unlocked)
        mine = {name: parameter.requires_grad for name, parameter in published(ours).items()}
        assert mine == {name: parameter.requires_grad for name, parameter in published(theirs).items()}
    finally:
        ours.requires_grad_(True)
        theirs.requires_grad_(True)


# The two programs that users write


def test_the_published_program_runs_as_it_stands() -> None:
    vision_cfg = CLIPVisionCfg(layers=12, width=768, patch_size=16, image_size=224)
    text_cfg = CLIPTextCfg(context_length=77, vocab_size=49408, width=512, heads=8, layers=12)
    model = CLIP(embed_dim=512, vision_cfg=vision_cfg, text_cfg=text_cfg, output_dict=True)
    output = model(torch.randn(4, 3, 224, 224), torch.randint(0, 49408, (4, 77)))
    similarity = (output["image_features"] @ output["text_features"].T) * output["logit_scale"]
    assert similarity.shape == (4, 4)
    assert output["image_features"].shape == output["text_features"].shape == (4, 512)
    assert similarity.isfinite().all()
    assert similarity.abs().max() <= output["logit_scale"] * 1.0001
    torch.testing.assert_close(output["logit_scale"].item(), 1 / 0.07)


def test_locked_image_training_moves_the_text_tower_and_nothing_of_the_image_tower() -> None:
    model: Any = CLIP(**tiny_arguments(output_dict=True)).train()
    model.lock_image_tower(unlocked_groups=0, freeze_bn_stats=True)
    model.set_grad_checkpointing(enable=True)
    before = {name: parameter.detach().clone() for name, parameter in published(model).items()}
    optimizer = torch.optim.SGD([one for one in model.parameters() if one.requires_grad], lr=0.1)
    output = model(images(model, 4), captions(model, 4))
    zoo.loss("contrastive")(output["image_features"], output["text_features"], output["logit_scale"]).backward()
    optimizer.step()
    for name, parameter in published(model).items():
        assert torch.equal(parameter, before[name]) == name.startswith("visual."), name


def test_all_of_the_peers_architectures_are_offered() -> None:
    offered = {name for entry in architectures().entries for name in (entry.name, *entry.aliases)}
    assert set(open_clip.list_models()) - offered == set()
    assert len(open_clip.list_models()) == 144
