"""What CLIP and CustomTextCLIP do beyond the numbers: arguments, names, errors."""

from __future__ import annotations

import math
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip.model import convert_weights_to_lp
from torch import Tensor, nn

from support.models.tiny_clip import KINDS, TEXT_PARTS, assert_same_outputs, outputs, tiny
from support.peer import captions, images, randomized, tiny_arguments
from zoo import CLIP, CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP
from zoo_core.errors import ConfigError, InputError
from zoo_core.nn.transformer import LayerNorm, QuickGELU


@pytest.fixture(params=KINDS, ids=["CLIP", "CustomTextCLIP"])
def model(request: pytest.FixtureRequest) -> Any:
    return tiny(request.param)


# Constructor arguments


def test_the_logit_scale_starts_at_its_argument_and_comes_out_exponentiated() -> None:
    assert tiny().logit_scale.item() == pytest.approx(math.log(1 / 0.07))
    model = tiny(init_logit_scale=math.log(10), output_dict=True)
    assert model.logit_scale.item() == pytest.approx(math.log(10))
    assert model(images(model), captions(model))["logit_scale"].item() == pytest.approx(10)


def test_a_logit_bias_is_a_fourth_output_and_an_offset_of_the_logits() -> None:
    plain, biased = tiny(), tiny(init_logit_bias=-10.0)
    arguments = images(plain), captions(plain)
    assert plain.logit_bias is None
    assert len(plain(*arguments)) == 3
    assert len(biased(*arguments)) == 4
    assert biased(*arguments)[3].requires_grad
    assert biased(*arguments)[3].item() == biased.logit_bias.item()
    for one, other in zip(biased.get_logits(*arguments), plain.get_logits(*arguments), strict=True):
        torch.testing.assert_close(one, other - 10)
    biased.output_dict = plain.output_dict = True
    assert list(plain(*arguments)) == ["image_features", "text_features", "logit_scale"]
    assert list(biased(*arguments)) == ["image_features", "text_features", "logit_scale", "logit_bias"]


def test_similarity_is_the_cosine_and_probabilities_are_as_the_model_was_trained() -> None:
    plain, biased = randomized(tiny()).eval(), randomized(tiny(init_logit_bias=-1.5), seed=1).eval()
    for model in (plain, biased):
        image, text = images(model), captions(model, 3)
        with torch.no_grad():
            one, other = model.encode_image(image).double(), model.encode_text(text).double()
            cosines = torch.stack([torch.cosine_similarity(row, other) for row in one])
            torch.testing.assert_close(model.similarity(image, text).double(), cosines, rtol=0, atol=1e-5)
            logits = cosines * model.logit_scale.double().exp()
            if model is plain:
                expected, scoring, wrong = logits.exp() / logits.exp().sum(dim=1, keepdim=True), "softmax", "sigmoid"
            else:
                expected, scoring, wrong = 1 / (1 + (-logits - model.logit_bias).exp()), "sigmoid", "softmax"
            assert model.scoring == scoring
            for found in (model.probabilities(image, text), model.probabilities(image, text, scoring=scoring)):
                torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-4)
        with pytest.raises(InputError, match=f"its scores are a {scoring}, not a {wrong}"):
            model.probabilities(image, text, scoring=wrong)
        with pytest.raises(InputError, match="scoring must be 'softmax', 'sigmoid' or None, found 'cosine'"):
            model.probabilities(image, text, scoring="cosine")
    with pytest.raises(InputError, match="one alone always wins"):
        plain.probabilities(images(plain), captions(plain, 1))
    assert biased.probabilities(images(biased), captions(biased, 1)).shape == (len(images(biased)), 1)


@pytest.mark.parametrize(("nonscalar", "shape"), [(False, ()), (True, (1,))])
def test_nonscalar_logit_scale_gives_scale_and_bias_one_dimension(nonscalar: bool, shape: tuple[int, ...]) -> None:
    model = tiny(init_logit_bias=-1.0, nonscalar_logit_scale=nonscalar, output_dict=True)
    output, state = model(images(model), captions(model)), model.state_dict()
    for name in ("logit_scale", "logit_bias"):
        assert output[name].shape == state[name].shape == shape
        assert getattr(model, name).shape == (1,)  # FSDP shards no scalars


@pytest.mark.parametrize("kind", KINDS)
def test_quick_gelu_reaches_both_towers_and_gives_the_peers_features(kind: Any) -> None:
    theirs: Any = randomized(getattr(open_clip, kind.__name__)(**tiny_arguments(quick_gelu=True))).eval()
    ours = kind(**tiny_arguments(quick_gelu=True)).eval()
    ours.load_state_dict(theirs.state_dict())
    assert sum(isinstance(module, QuickGELU) for module in ours.modules()) == 6
    assert not any(isinstance(module, nn.GELU) for module in ours.modules())
    for one, other in zip(outputs(ours), outputs_of_peer(theirs, ours), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def outputs_of_peer(theirs: Any, ours: Any) -> tuple[Tensor, Tensor]:
    with torch.inference_mode():
        return theirs.encode_image(images(ours)), theirs.encode_text(captions(ours))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_cast_dtype_casts_matrices_and_leaves_norms_and_logit_scale(dtype: torch.dtype) -> None:
    model = tiny(cast_dtype=dtype, init_logit_bias=-1.0)
    norms = {id(one) for module in model.modules() if isinstance(module, LayerNorm) for one in module.parameters()}
    assert len(norms) == 2 * (2 * 6 + 3)
    for name, parameter in model.named_parameters():
        kept = id(parameter) in norms or name in ("logit_scale", "logit_bias")
        assert parameter.dtype == (torch.float32 if kept else dtype), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_logits_of_a_half_precision_model_have_the_dtype_of_its_logit_scale(dtype: torch.dtype) -> None:
    model = tiny(cast_dtype=dtype)
    image, text = images(model), captions(model)
    logits = model.get_logits(image, text)[0]
    torch.testing.assert_close(
        logits, model.logit_scale.exp() * model.similarity(image, text).float(), rtol=0.05, atol=0.1
    )
    given = model.forward_intermediates(image, text, output_logits=True)["image_logits"]
    assert logits.dtype == given.dtype == torch.float32
    torch.testing.assert_close(model.probabilities(image, text), logits.softmax(dim=-1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_cast_dtype_is_as_near_to_float32_as_the_peers_precision(dtype: torch.dtype) -> None:
    exact: Any = randomized(open_clip.CLIP(**tiny_arguments())).eval()
    theirs: Any = open_clip.CLIP(**tiny_arguments(cast_dtype=dtype)).eval()
    theirs.load_state_dict(exact.state_dict())
    convert_weights_to_lp(theirs, dtype)
    ours = CLIP(**tiny_arguments(cast_dtype=dtype)).eval()
    ours.load_state_dict(exact.state_dict())
    image, text = images(ours, 16), captions(ours, 16)
    with torch.inference_mode():
        for encode, given in (("encode_image", (image, image.to(dtype))), ("encode_text", (text, text))):
            reference = getattr(exact, encode)(given[0], normalize=True)
            found = getattr(ours, encode)(given[0], normalize=True)
            expected = getattr(theirs, encode)(given[1], normalize=True)
            assert found.dtype == expected.dtype == dtype
            error, allowed = ((one.float() - reference).norm(dim=-1).mean() for one in (found, expected))
            assert error < 2 * allowed
            assert F.cosine_similarity(found.float(), expected.float()).min() > 0.999


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embed_dim": 0}, "embed_dim: must be at least 1, found 0"),
        ({"embed_dim": "512"}, "embed_dim: expected a whole number"),
        ({"quick_gelu": "yes"}, "quick_gelu: expected true or false"),
        ({"init_logit_scale": math.nan}, "init_logit_scale: expected a finite number"),
        ({"init_logit_scale": 100.0}, "init_logit_scale: must be at most 20"),
        ({"init_logit_bias": math.inf}, "init_logit_bias: expected a finite number"),
        ({"cast_dtype": torch.int8}, "cast_dtype must be None, float32, float16 or bfloat16"),
        ({"cast_dtype": "bf16"}, "cast_dtype must be None, float32, float16 or bfloat16"),
        ({"vision_cfg": {"patchsize": 16}}, "did you mean 'patch_size'"),
        ({"vision_cfg": {"image_size": 30, "patch_size": 16}}, "16 does not divide the image height 30"),
        ({"vision_cfg": {"width": 100}}, "head_width: 64 does not divide the width 100"),
        ({"text_cfg": {"width": 100, "heads": 3}}, "heads: 3 does not divide the width 100"),
        ({"text_cfg": {"pool_type": "max"}}, "pool_type: 'max' is not known"),
        ({"text_cfg": None}, "expected a section with the key 'tower'"),
        ({"vision_cfg": CLIPTextCfg()}, "expected a section with the key 'tower'"),
    ],
    ids=str,
)
def test_a_wrong_argument_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, InputError)) as caught:
        CLIP(**tiny_arguments() | changes)
    assert message in str(caught.value)


def test_configs_and_mappings_build_the_same_model() -> None:
    arguments = tiny_arguments()
    configs = {
        "vision_cfg": CLIPVisionCfg(**arguments["vision_cfg"]),
        "text_cfg": CLIPTextCfg(**arguments["text_cfg"]),
    }
    models = []
    for given in (arguments, arguments | configs):
        torch.manual_seed(0)
        models.append(CLIP(**given).eval())
    assert_same_outputs(*models)


# Names


def test_attributes_have_their_published_names() -> None:
    model = tiny()
    assert model.context_length == 12
    assert model.vocab_size == 1024
    assert model.token_embedding.weight.shape == (1024, 24)
    assert model.positional_embedding.shape == (12, 24)
    assert model.text_projection.shape == (24, 16)
    assert model.visual.proj.shape == (32, 16)
    assert len(model.transformer.resblocks) == len(model.visual.transformer.resblocks) == 3
    assert model.transformer.resblocks[0].attn.in_proj_weight.shape == (72, 24)
    assert model.transformer.resblocks[0].attn.in_proj_bias.shape == (72,)
    assert isinstance(model.ln_final, nn.LayerNorm)
    for name in TEXT_PARTS:
        assert getattr(model, name) is getattr(model.text, name)


def test_every_parameter_exists_once() -> None:
    model = tiny()
    assert len(list(model.parameters())) == len(list(model.named_parameters(remove_duplicate=False)))
    assert len(model.state_dict()) == len(list(model.parameters()))


def test_a_published_name_that_is_set_changes_the_tower() -> None:
    model = tiny()
    before = model.encode_text(captions(model))
    model.positional_embedding = nn.Parameter(torch.randn(12, 24))
    assert model.text.positional_embedding is model.positional_embedding
    assert "positional_embedding" not in dict(model.named_parameters())
    assert torch.equal(model.state_dict()["positional_embedding"], model.positional_embedding)
    assert not torch.allclose(model.encode_text(captions(model)), before)
    model.ln_final = LayerNorm(24)
    assert model.text.ln_final is model.ln_final
    assert "ln_final" not in dict(model.named_children())


def test_custom_text_clip_shows_its_text_tower_only_under_text() -> None:
    model = tiny(CustomTextCLIP)
    for name in TEXT_PARTS:
        assert not hasattr(model, name)
        assert hasattr(model.text, name)


def test_an_unknown_attribute_is_named_with_its_class() -> None:
    with pytest.raises(AttributeError, match=r"'CLIP' object has no attribute 'ln_finale'"):
        _ = tiny().ln_finale


def test_no_weight_decay_names_what_the_peer_names() -> None:
    theirs: Any = open_clip.CLIP(**tiny_arguments())
    assert theirs.no_weight_decay() <= tiny().no_weight_decay()
    for kind in KINDS:
        model = tiny(kind)
        known = {*model.state_dict(), *dict(model.named_parameters())}
        assert model.no_weight_decay() <= known
        assert len({id(one) for name, one in model.named_parameters() if name in model.no_weight_decay()}) == 3


# Precision


def test_autocast_runs_in_the_lower_precision(model: Any) -> None:
    reference = outputs(model)
    with torch.autocast("cpu", torch.bfloat16):
        found = outputs(model)
    for one, other in zip(found, reference, strict=True):
        assert one.dtype == torch.bfloat16
        assert F.cosine_similarity(one.float(), other).min() > 0.99
