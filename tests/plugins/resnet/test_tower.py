"""CLIP's modified ResNet against open_clip 3.3.0's, and what ours does beyond it: sizes, groups, checkpointing."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy
import open_clip
import pytest
import torch
from open_clip.model import convert_weights_to_lp
from open_clip.modified_resnet import ModifiedResNet as PeerResNet
from PIL import Image
from torch import Tensor, nn
from torch.export import Dim

import zoo
from support.peer import captions, images, randomized, small_pair, small_peer_config
from zoo_core.errors import ConfigError, InputError
from zoo_core.models.constructors import with_quick_gelu
from zoo_core.nn.transformer import QuickGELU
from zoo_resnet.config import ModifiedResNetConfig
from zoo_resnet.tower import ModifiedResNet

TOLERANCE = 1e-5
LAYERS = (2, 1, 1, 2)
MAPS = [(8, 16, 16), (32, 16, 16), (64, 8, 8), (128, 4, 4), (256, 2, 2)]
"""Channels, rows and columns of the five maps of images of 64 by 64 pixels."""
GROUPS = ("stem", "layer1", "layer2", "layer3", "layer4", "attnpool")


def tower(**changes: Any) -> ModifiedResNet:
    values = {"image_size": 64, "layers": LAYERS, "width": 8, "head_width": 16, **changes}
    return ModifiedResNet(ModifiedResNetConfig(**values), embed_dim=24)


def peer_tower() -> Any:
    return PeerResNet(list(LAYERS), 24, 16, image_size=64, width=8)


def pair() -> tuple[ModifiedResNet, Any]:
    """Return our tower and the peer's with the same weights and running statistics, in evaluation mode."""
    ours, theirs = randomized(tower()).eval(), peer_tower().eval()
    theirs.load_state_dict(ours.state_dict())
    assert isinstance(ours, ModifiedResNet)
    return ours, theirs


def noise(*shape: int) -> Tensor:
    return torch.randn(shape or (3, 3, 64, 64), generator=torch.Generator().manual_seed(1))


def same(ours: Any, theirs: Any, tolerance: float = TOLERANCE) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)


def buffers(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.named_buffers()}


def gradients(model: nn.Module) -> dict[str, Tensor | None]:
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def stepped(model: nn.Module, image: Tensor | None = None) -> nn.Module:
    """Return `model` after a training step's forward and backward pass."""
    model.train()(noise() if image is None else image).square().sum().backward()
    return model


# The peer


def test_one_seed_draws_the_peers_weights_under_the_peers_names() -> None:
    torch.manual_seed(7)
    ours = tower().state_dict()
    torch.manual_seed(7)
    theirs = peer_tower().state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert not ours["layer3.0.bn3.weight"].any()


def test_features_and_all_five_maps_are_the_peers() -> None:
    ours, theirs = pair()
    with torch.inference_mode():
        found, expected = ours.forward_intermediates(noise()), theirs.forward_intermediates(noise())
        assert [tuple(one.shape[1:]) for one in found["image_intermediates"]] == MAPS
        same(found, expected)
        same(ours(noise()), theirs(noise()))


def test_a_training_step_gives_the_peers_gradients_and_running_statistics() -> None:
    ours, theirs = (stepped(model) for model in pair())
    assert all(gradient is not None and gradient.any() for gradient in gradients(ours).values())
    largest = max(float(one.abs().max()) for one in gradients(theirs).values() if one is not None)
    same(gradients(ours), gradients(theirs), tolerance=TOLERANCE * max(1.0, largest))
    same(buffers(ours), buffers(theirs))


def test_images_that_are_not_square_give_the_peers_features() -> None:
    """The peer cannot be built for them, but takes them where its positions are as many as the cells."""
    ours, theirs = randomized(tower(image_size=[64, 96])).eval(), peer_tower().eval()
    theirs.attnpool.positional_embedding = nn.Parameter(torch.zeros(1 + 2 * 3, 256))
    theirs.load_state_dict(ours.state_dict())
    with torch.inference_mode():
        same(ours(noise(2, 3, 64, 96)), theirs(noise(2, 3, 64, 96)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_cast_dtype_is_as_near_to_float32_as_the_peers_precision(dtype: torch.dtype) -> None:
    exact, _ = small_pair("rn50")
    ours = zoo.CLIP(exact.config.embed_dim, exact.config.vision, exact.config.text, cast_dtype=dtype).eval()
    ours.load_state_dict(exact.state_dict())
    theirs: Any = open_clip.CLIP(**small_peer_config("rn50"), cast_dtype=dtype).eval()
    theirs.load_state_dict(exact.state_dict())
    convert_weights_to_lp(theirs, dtype)
    assert ours.visual.layer1[0].bn1.weight.dtype == torch.float32
    image = images(ours, 8)
    with torch.inference_mode():
        reference = exact.encode_image(image, normalize=True)
        found = ours.encode_image(image, normalize=True)
        expected = theirs.encode_image(image.to(dtype), normalize=True)
    assert found.dtype == dtype
    error, allowed = ((one.float() - reference).norm(dim=-1).mean() for one in (found, expected))
    assert error < 2 * allowed


# Activation


def test_quick_gelu_reaches_the_text_tower_alone_as_in_the_peer() -> None:
    config = zoo.config("rn50-quickgelu")
    assert config.text.activation == "quick_gelu"
    twin, theirs = small_pair("rn50-quickgelu")
    small = twin.config
    text = type(small.text).parse({**small.text.data(), "activation": "gelu"})
    ours = zoo.CLIP(small.embed_dim, small.vision, text, quick_gelu=True).eval()
    assert {name.partition(".")[0] for name, one in ours.named_modules() if isinstance(one, QuickGELU)} == {"text"}
    ours.load_state_dict(theirs.state_dict())
    with torch.inference_mode():
        same(ours.encode_image(images(ours)), theirs.encode_image(images(ours)))
        same(ours.encode_text(captions(ours)), theirs.encode_text(captions(ours)))


def test_quick_gelu_is_refused_for_a_tower_that_does_not_say_its_activation_is_fixed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments: dict[str, Any] = {"vision_cfg": ModifiedResNetConfig(image_size=32, width=2), "text_cfg": {}}
    monkeypatch.setattr(ModifiedResNetConfig, "fixed_activation", None)
    with pytest.raises(ConfigError, match="quick_gelu: tower 'modified-resnet' has no activation to choose"):
        zoo.CLIP(16, **arguments, quick_gelu=True)


def test_quick_gelu_that_would_change_neither_tower_is_refused() -> None:
    with pytest.raises(ConfigError, match="quick_gelu: tower 'modified-resnet' has no activation to choose"):
        with_quick_gelu(ModifiedResNetConfig(), ModifiedResNetConfig())


# Tokens and intermediates


def test_tokens_are_the_cells_of_the_last_map_row_by_row() -> None:
    model = randomized(tower(image_size=[64, 96])).eval()
    image = noise(2, 3, 64, 96)
    with torch.inference_mode():
        features, tokens = model.forward_tokens(image)
        last = model.forward_intermediates(image, indices=1)["image_intermediates"][0]
        assert torch.equal(features, model(image))
    assert last.shape == (2, 256, 2, 3)
    for row, column in itertools.product(range(2), range(3)):
        assert torch.equal(tokens[:, 3 * row + column], last[:, :, row, column])


def test_maps_become_tokens_where_nlc_is_asked_for() -> None:
    model = randomized(tower()).eval()
    options: dict[str, Any] = {"intermediates_only": True}
    maps = model.forward_intermediates(noise(), **options)["image_intermediates"]
    tokens = model.forward_intermediates(noise(), output_fmt="NLC", **options)["image_intermediates"]
    for one, other in zip(maps, tokens, strict=True):
        assert torch.equal(one, other.transpose(1, 2).unflatten(2, one.shape[2:]))


def test_there_are_no_tokens_beside_the_cells() -> None:
    output = tower().eval().forward_intermediates(noise(), output_extra_tokens=True, output_fmt="NLC")
    prefixes = output["image_intermediates_prefix"]
    assert [tuple(one.shape) for one in prefixes] == [(3, 0, channels) for channels, _, _ in MAPS]
    for prefix, tokens in zip(prefixes, output["image_intermediates"], strict=True):
        assert torch.equal(torch.cat([prefix, tokens], dim=1), tokens)


@pytest.mark.parametrize("indices", [None, 1, 3, 5, [0], [4], [-5, -1], [3, 1], (2, 2)], ids=repr)
def test_indices_pick_the_peers_maps(indices: Any) -> None:
    ours, theirs = pair()
    with torch.inference_mode():
        found = ours.forward_intermediates(noise(), indices=indices)
        # the peer's stop_early is inverted: True is what runs every stage there
        same(found, theirs.forward_intermediates(noise(), indices=indices, stop_early=True))


@pytest.mark.parametrize(
    ("options", "ran"),
    [
        ({"indices": [1], "stop_early": True, "intermediates_only": True}, 1),
        ({"indices": [3, 0], "stop_early": True, "intermediates_only": True}, 3),
        ({"indices": [0], "stop_early": True, "intermediates_only": True}, 0),
        ({"indices": [1], "stop_early": False, "intermediates_only": True}, 4),
        ({"indices": [1], "stop_early": True, "intermediates_only": False}, 4),
    ],
    ids=str,
)
def test_stop_early_leaves_out_the_stages_after_the_last_wanted_one(options: dict[str, Any], ran: int) -> None:
    model = randomized(tower()).eval()
    seen: list[nn.Module] = []
    for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
        stage[0].register_forward_hook(lambda module, *_: seen.append(module))
    output = model.forward_intermediates(noise(), **options)
    assert len(seen) == ran
    if not options["intermediates_only"]:
        assert torch.equal(output["image_features"], model(noise()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"normalize_intermediates": True}, "normalize_intermediates: a modified-resnet has no final norm to apply"),
        ({"output_fmt": "NHWC"}, "image_output_fmt must be 'NCHW' or 'NLC', found 'NHWC'"),
        ({"indices": 6}, "indices: the last 6 of 5 blocks do not exist; allowed: 1 to 5"),
        ({"indices": [5]}, "indices: there is no block 5; allowed: -5 to 4"),
    ],
    ids=str,
)
def test_an_option_that_cannot_be_honoured_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        tower().forward_intermediates(noise(), **options)


# Other image sizes


def resampled(positions: Tensor, rows: int, columns: int) -> Tensor:
    """Return positions for a grid of another size, resampled by Pillow, one channel at a time."""
    mean, grid = positions[:1], positions[1:].T.unflatten(1, (2, 2)).numpy()
    size = (columns, rows)
    cells = [numpy.asarray(Image.fromarray(one).resize(size, Image.Resampling.BICUBIC)) for one in grid]
    return torch.cat([mean, torch.from_numpy(numpy.stack(cells)).flatten(1).T])


@pytest.mark.parametrize("size", [(96, 160), (128, 64), (32, 32), (32, 64)], ids=str)
def test_an_image_of_another_size_meets_resampled_positions(size: tuple[int, int]) -> None:
    model = randomized(tower()).eval()
    other = tower(image_size=list(size)).eval()
    state = model.state_dict()
    state["attnpool.positional_embedding"] = resampled(
        state["attnpool.positional_embedding"], size[0] // 32, size[1] // 32
    )
    other.load_state_dict(state)
    with torch.inference_mode():
        same(model(noise(2, 3, *size)), other(noise(2, 3, *size)))


def test_another_size_works_in_half_precision_and_in_training() -> None:
    model = tower().to(torch.bfloat16)
    features = model(noise(2, 3, 96, 64).to(torch.bfloat16))
    assert features.dtype == torch.bfloat16
    features.sum().backward()
    gradient = model.attnpool.positional_embedding.grad
    assert gradient is not None and gradient.isfinite().all() and gradient.any()


@pytest.mark.parametrize("size", [(64, 65), (48, 64), (16, 64), (0, 64)], ids=str)
def test_a_size_that_32_does_not_divide_is_refused(size: tuple[int, int]) -> None:
    model, _ = small_pair("rn50")
    for call in (model.encode_image, model.visual.forward_tokens, model.visual.forward_intermediates):
        with pytest.raises(InputError, match=f"multiples of 32 pixels, found {size[0]} x {size[1]}"):
            call(noise(1, 3, *size))


# Locking


def group_of(name: str) -> int:
    part = name.partition(".")[0]
    return GROUPS.index(part) if part in GROUPS else 0


@pytest.mark.parametrize("unlocked", range(8))
def test_locking_leaves_the_last_groups_trainable(unlocked: int) -> None:
    model = tower()
    model.lock(unlocked)
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (group_of(name) >= len(GROUPS) - unlocked), name


@pytest.mark.parametrize("frozen", [False, True], ids=["moving", "frozen"])
def test_locked_batch_norms_give_the_peers_features_and_statistics_in_training(frozen: bool) -> None:
    ours, theirs = pair()
    for model in (ours, theirs):
        model.lock(freeze_bn_stats=frozen)
        model.train()
    before = buffers(ours)
    same(ours(noise()), theirs(noise()))
    assert not any(parameter.requires_grad for parameter in (*ours.parameters(), *theirs.parameters()))
    after, peers = buffers(ours), buffers(theirs)  # the peer's frozen norms hold weights as buffers, and no count
    shared = after.keys() & peers.keys()
    assert {name.rpartition(".")[2] for name in shared} >= {"running_mean", "running_var"}
    same({name: after[name] for name in shared}, {name: peers[name] for name in shared})
    for name, value in after.items():
        assert torch.equal(value, before[name]) == frozen, name


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointed"])
def test_freezing_statistics_spares_those_of_unlocked_groups(checkpointing: bool) -> None:
    model = randomized(tower())
    model.lock(2, freeze_bn_stats=True)
    model.set_grad_checkpointing(checkpointing)
    before = buffers(model)
    stepped(model)
    for name, value in buffers(model).items():
        assert torch.equal(value, before[name]) == (group_of(name) < 4), name
    for name, gradient in gradients(model).items():
        assert (gradient is None) == (group_of(name) < 4), name


# Gradient checkpointing


@pytest.mark.parametrize("momentum", [0.1, None], ids=["momentum", "cumulative"])
def test_checkpointing_changes_neither_gradients_nor_running_statistics(momentum: float | None) -> None:
    plain = randomized(tower())
    norms = [module for module in plain.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = momentum
    saving = copy.deepcopy(plain)
    saving.set_grad_checkpointing()
    for _ in range(2):
        stepped(plain)
        stepped(saving)
    same(gradients(saving), gradients(plain), tolerance=0)
    assert buffers(plain)["layer4.0.bn2.num_batches_tracked"] == 2
    assert all(torch.equal(value, buffers(plain)[name]) for name, value in buffers(saving).items())
    assert {module.momentum for module in saving.modules() if isinstance(module, nn.BatchNorm2d)} == {momentum}


def test_checkpointing_recomputes_the_stem_and_every_block() -> None:
    model = tower()
    calls: list[nn.Module] = []
    blocks = [model.layer1[0], model.layer1[1], model.layer2[0], model.layer3[0], model.layer4[0], model.layer4[1]]
    for module in (model.conv1, *(block.conv1 for block in blocks)):
        module.register_forward_hook(lambda module, *_: calls.append(module))
    for enable, times in ((True, 2), (False, 1)):
        calls.clear()
        model.set_grad_checkpointing(enable)
        stepped(model)
        assert len(calls) == 7 * times


# Compiling and exporting


SMALLEST: dict[str, Any] = {"image_size": 32, "layers": (1, 1, 1, 1), "width": 4, "head_width": 128}


def test_a_compiled_checkpointed_step_gives_the_eager_gradients_and_statistics() -> None:
    eager = randomized(tower(**SMALLEST))
    model = copy.deepcopy(eager)
    model.set_grad_checkpointing()
    image = noise(4, 3, 64, 64)
    torch.compile(model, backend="aot_eager", fullgraph=True).train()(image).square().sum().backward()
    stepped(eager, image)
    same(gradients(model), gradients(eager), tolerance=1e-4)
    same(buffers(model), buffers(eager))


ANY_BATCH = {0: Dim("batch", min=2, max=64)}
ANY_SIZE = ANY_BATCH | {2: 32 * Dim("rows", min=1, max=8), 3: 32 * Dim("columns", min=1, max=8)}


@pytest.mark.parametrize(
    ("dynamic", "shape"),
    [
        pytest.param(ANY_BATCH, (3, 3, 96, 160), id="batch"),
        pytest.param(ANY_SIZE, (3, 3, 64, 128), id="size", marks=pytest.mark.slow),
    ],
)
def test_an_exported_tower_takes_any_batch_and_any_size(dynamic: dict[int, Any], shape: tuple[int, ...]) -> None:
    model = randomized(tower(**SMALLEST)).eval()
    with torch.no_grad():
        program = torch.export.export(model, (noise(2, 3, 96, 160),), dynamic_shapes=(dynamic,)).module()
        same(program(noise(*shape)), model(noise(*shape)))


# Configs


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "three depths": ({"layers": [1, 1, 1]}, "layers: expected four depths such as [3, 4, 6, 3], found [1, 1, 1]"),
    "five depths": ({"layers": [1] * 5}, "layers: expected four depths such as [3, 4, 6, 3], found [1, 1, 1, 1, 1]"),
    "one depth": ({"layers": 12}, "layers: expected four depths such as [3, 4, 6, 3], found 12"),
    "no depths": ({"layers": None}, "layers: expected four depths such as [3, 4, 6, 3], found None"),
    "an empty stage": ({"layers": [3, 0, 6, 3]}, "layers[1]: must be at least 1, found 0"),
    "half a block": ({"layers": [3, 4, 6, 3.5]}, "layers[3]: expected a whole number, found 3.5"),
    "a depth as a string": ({"layers": [3, "4", 6, 3]}, "layers[1]: expected a whole number, found '4'"),
    "endless depth": ({"layers": [3, 4, 6, 10**6]}, "layers[3]: must be at most 1000, found 1000000"),
    "height that is no multiple": ({"image_size": [230, 224]}, "image_size: 32 does not divide the image height 230"),
    "width that is no multiple": ({"image_size": [224, 240]}, "image_size: 32 does not divide the image width 240"),
    "image below one cell": ({"image_size": 16}, "image_size: 32 does not divide the image height 16"),
    "odd width": ({"width": 63}, "width: must be even, because the stem opens with half of it; found 63"),
    "no width": ({"width": 0}, "width: must be at least 2, found 0"),
    "heads that do not divide": (
        {"head_width": 48},
        "head_width: 48 does not divide 2048, which is 32 times the width",
    ),
    "heads wider than the map": ({"width": 2, "head_width": 128}, "head_width: 128 does not divide 64"),
    "a choice of activation": ({"activation": "quick_gelu"}, "activation: unknown key"),
    "a patch": ({"patch_size": 32}, "patch_size: unknown key"),
    "patch dropout": ({"patch_dropout": 0.5}, "patch_dropout: unknown key"),
    "LayerScale": ({"ls_init_value": 1e-4}, "ls_init_value: unknown key"),
    "another pooling": ({"pool_type": "avg"}, "pool_type: unknown key"),
}
"""What open_clip 3.3.0 mostly ignores, floors or meets with an IndexError -> what ours says."""


@pytest.mark.parametrize(("values", "message"), BAD.values(), ids=BAD)
def test_a_bad_config_is_refused_with_the_key_the_value_and_the_rule(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ModifiedResNetConfig.parse(values)
    assert f"ModifiedResNetConfig: {message}" in str(caught.value)


def test_depths_in_yaml_can_be_overridden_on_the_command_line() -> None:
    config: Any = zoo.config("rn50", ["vision.layers=[1, 2, 1, 1]", "vision.image_size=[64, 96]"])
    assert config.vision.layers == (1, 2, 1, 1)
    assert config.data()["vision"]["layers"] == [1, 2, 1, 1]
    assert config.vision.grid == (2, 3)


def test_positions_are_spared_from_weight_decay() -> None:
    assert tower().no_weight_decay() == {"attnpool.positional_embedding"}


def test_the_mean_is_the_only_query() -> None:
    """The peer computes a query for every cell and throws all outputs but the first away."""
    model = tower()
    shapes: list[torch.Size] = []
    model.attnpool.q_proj.register_forward_hook(lambda *args: shapes.append(args[2].shape))
    assert model(noise()).shape == (3, 24)
    assert shapes == [torch.Size([3, 1, 256])]
