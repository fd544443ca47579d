"""The losses against open_clip's in its own settings, and against dense matrices in float64 for all that is ours."""

from __future__ import annotations

import copy
import itertools
import pickle
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.loss import DistillClipLoss as PeerDistillClipLoss
from open_clip.loss import SigLipLoss as PeerSigLipLoss
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import zoo
from support.loss_references import ARGUMENTS, OPTIONS, ROWS, arguments, drawn, gradients, reference
from zoo import ClipLoss, CoCaLoss, DistillClipLoss, SigLipLoss
from zoo_core.errors import ConfigError, InputError
from zoo_losses.pairs import paired_entries

CLASSES = {"contrastive": ClipLoss, "sigmoid": SigLipLoss, "coca": CoCaLoss, "distillation": DistillClipLoss}
PEERS = {"contrastive": open_clip.ClipLoss, "sigmoid": PeerSigLipLoss}
BIASED = ("logit_bias", "dist_logit_bias")


def features(count: int, width: int = 8, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(count)
    made = torch.randn(2, count, width, generator=generator, dtype=torch.float64)
    return [side.to(dtype).requires_grad_() for side in F.normalize(made, dim=-1)]


def scale_and_bias(shape: tuple[int, ...], bias: float | None) -> list[Any]:
    scale = torch.full(shape, 14.0).requires_grad_()
    return [scale, None if bias is None else torch.full(shape, bias).requires_grad_()]


def total(found: Any) -> Tensor:
    return found if isinstance(found, Tensor) else torch.stack(list(found.values())).sum()


def built(name: str, **options: Any) -> Any:
    return zoo.loss(name, **OPTIONS[name], **options)


def single(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: one.float() if one.is_floating_point() else one for key, one in batch.items()}


# --- what the peer computes ---


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("shape", [(), (1,)], ids=["scalar", "one-element"])
@pytest.mark.parametrize("bias", [None, -10.0], ids=["no-bias", "bias"])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_value_and_gradients_are_the_peers(name: str, shape: tuple[int, ...], bias: float | None, count: int) -> None:
    results: list[list[Any]] = []
    for loss in (zoo.loss(name), PEERS[name]()):
        inputs = [*features(count), *scale_and_bias(shape, bias)]
        value = loss(*inputs)
        value.backward()
        results.append([value, *(one.grad for one in inputs if one is not None)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs.reshape(ours.shape), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["coca", "distillation"])
def test_value_and_gradients_of_two_part_losses_are_the_peers(name: str) -> None:
    options = {"caption_loss_weight": 2.0, "clip_loss_weight": 1.0, "pad_id": 3} if name == "coca" else {}
    peer: Any = open_clip.CoCaLoss(**options) if name == "coca" else PeerDistillClipLoss()
    results = []
    for loss in (zoo.loss(name, **options), peer):
        inputs = arguments(name, single(drawn(6)), ids=False)
        inputs = {key: one for key, one in inputs.items() if key not in BIASED}  # which the peer cannot take
        parts = loss(**inputs, output_dict=True)
        results.append([parts, gradients(total(parts), inputs)])
        positional = loss(*(inputs[key] for key in POSITIONS[name]))
        assert [one.item() for one in positional] == [one.item() for one in parts.values()]
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-5)


POSITIONS = {
    "coca": ("image_features", "text_features", "logits", "labels", "logit_scale"),
    "distillation": (
        *("image_features", "text_features", "logit_scale"),
        *("dist_image_features", "dist_text_features", "dist_logit_scale"),
    ),
}
"""The order in which the peer takes its arguments."""


@pytest.mark.parametrize("name", PEERS)
def test_output_dict_names_the_loss_as_the_peer_does(name: str) -> None:
    inputs = [*features(3), *scale_and_bias((), -1.0)]
    ours: Any = zoo.loss(name)
    found, expected = (loss(*inputs, output_dict=True) for loss in (ours, PEERS[name]()))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


# --- what dense matrices in float64 compute ---


@pytest.mark.parametrize("name", CLASSES)
@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 9),
    chunk_size=st.none() | st.integers(1, 12),
    classes=st.none() | st.integers(1, 9),
    weights=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_any_chunk_size_and_pattern_of_ids_and_weights_gives_the_exact_value_and_gradients(
    name: str, count: int, chunk_size: int | None, classes: int | None, weights: bool, seed: int
) -> None:
    weights = weights and name != "distillation"  # which takes none
    inputs = arguments(name, drawn(count, seed=seed, classes=classes or 1), ids=classes is not None, weights=weights)
    expected = reference(name, inputs)
    found = total(built(name, chunk_size=chunk_size)(**inputs, output_dict=True))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(gradients(found, inputs), gradients(expected, inputs), rtol=0, atol=1e-10)


def test_the_own_pairs_of_a_tile_are_those_of_the_whole_matrix() -> None:
    matrix = torch.arange(40.0).view(4, 10)
    for first, start, width in itertools.product(range(7), range(10), range(1, 11)):
        chunk = slice(start, min(10, start + width))
        rows, entries = paired_entries(matrix[:, chunk], chunk, first)
        paired = [row for row in range(4) if chunk.start <= first + row < chunk.stop]
        assert list(range(4))[rows] == paired
        assert entries.tolist() == [matrix[row, first + row].item() for row in paired]


@pytest.mark.parametrize("name", CLASSES)
@given(ids=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=5, max_size=5, unique=True))
@settings(max_examples=20, deadline=None)
def test_distinct_ids_give_the_plain_loss_to_the_last_bit(name: str, ids: list[int]) -> None:
    inputs = arguments(name, single(drawn(5)), ids=False)
    with_ids = built(name)(**inputs, ids=torch.tensor(ids), output_dict=True)
    assert torch.equal(total(with_ids), total(built(name)(**inputs, output_dict=True)))


@pytest.mark.parametrize("name", ["contrastive", "sigmoid"])
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    inputs = [*features(3, width=4, dtype=torch.float64), *(one.double().detach() for one in scale_and_bias((), -1.0))]
    inputs = [one.requires_grad_() for one in inputs]
    assert torch.autograd.gradcheck(zoo.loss(name, chunk_size=2), inputs)


@pytest.mark.parametrize("frozen", ["image_features", "text_features", "logit_scale"])
@pytest.mark.parametrize("name", CLASSES)
def test_what_needs_no_gradient_changes_no_other(name: str, frozen: str) -> None:
    inputs = arguments(name, drawn(5), ids=True)
    expected = gradients(reference(name, inputs), inputs)
    inputs[frozen] = inputs[frozen].detach()
    found = gradients(total(built(name, chunk_size=2)(**inputs, output_dict=True)), inputs)
    assert found.keys() == expected.keys() - {frozen}
    for key, one in found.items():
        torch.testing.assert_close(one, expected[key], rtol=0, atol=1e-10)


@pytest.mark.parametrize("scale", [1.0, 100.0, 1e4])
def test_a_perfectly_told_batch_has_a_loss_of_zero_and_never_less(scale: float) -> None:
    images = torch.eye(8)
    value = ClipLoss(chunk_size=3)(images, images, torch.tensor(scale))
    assert value.item() == pytest.approx(reference("contrastive", as_pair(images, scale)).item(), abs=1e-6)
    assert value.item() >= 0


def as_pair(images: Tensor, scale: float) -> dict[str, Tensor]:
    return {"image_features": images.double(), "text_features": images.double(),
            "logit_scale": torch.tensor(scale).double(), "logit_bias": torch.zeros(()).double()}  # fmt: skip


def test_well_placed_positives_keep_their_small_gradient_in_the_sigmoid_loss() -> None:
    images = torch.eye(2).requires_grad_()
    (found,) = torch.autograd.grad(SigLipLoss()(images, torch.eye(2), torch.tensor(25.0)), images)
    assert found[0, 0].item() == pytest.approx(-25.0 / 2 * torch.sigmoid(torch.tensor(-25.0)).item(), rel=1e-5)


# --- memory and precision ---


class LargestTensor(TorchDispatchMode):
    """Remembers the size of the largest tensor that any operation returns."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **kwargs or {})
        if isinstance(found, Tensor):
            self.elements = max(self.elements, found.numel())
        return found


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize(("chunk_size", "ids"), [(16, False), (16, True), (40, True)])
def test_no_tensor_of_forward_or_backward_is_larger_than_a_chunk(name: str, chunk_size: int, ids: bool) -> None:
    inputs = arguments(name, drawn(256, width=4), ids=ids)
    loss = built(name, chunk_size=chunk_size)
    with LargestTensor() as largest:
        gradients(total(loss(**inputs, output_dict=True)), inputs)
    captions = inputs["logits"].numel() if "logits" in inputs else 0
    assert largest.elements <= max(256 * chunk_size, captions)


def test_the_default_chunk_is_bounded_whatever_the_batch() -> None:
    images, texts = (torch.zeros(9_000, 1) for _ in range(2))
    with LargestTensor() as largest, torch.no_grad():
        SigLipLoss()(images, texts, torch.tensor(1.0))
    assert largest.elements <= 9_000 * 256


class Products(TorchDispatchMode):
    """Counts matrix products."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm_)
        return func(*args, **kwargs or {})


@pytest.mark.parametrize(
    ("name", "scored", "trained"),
    [("contrastive", 1, 4), ("sigmoid", 1, 3), ("distillation", 3, 7)],
)
def test_a_chunk_takes_no_more_matrix_products_than_it_must(name: str, scored: int, trained: int) -> None:
    """Logits and two gradients; logits once more in backward where a softmax first had to see them all."""
    inputs = arguments(name, drawn(8), ids=False)
    loss = built(name, chunk_size=2)
    with Products() as products, torch.no_grad():
        loss(**inputs)
    assert products.count == 4 * scored
    with Products() as products:
        gradients(total(loss(**inputs, output_dict=True)), inputs)
    assert products.count == 4 * trained


class Operations(TorchDispatchMode):
    """Counts operations, each of which a GPU has to be told."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("name", PEERS)
def test_a_batch_of_one_tile_takes_hardly_more_operations_than_the_peers(name: str) -> None:
    inputs = [*features(8), *scale_and_bias((), -10.0 if name == "sigmoid" else None)]
    counts: list[int] = []
    for loss in (built(name), PEERS[name]()):
        with Operations() as operations:
            loss(*[one for one in inputs if one is not None]).backward()
        counts.append(operations.count)
    assert counts[0] <= 1.25 * counts[1]


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("autocast", [False, True])
def test_logits_are_never_computed_below_float32(name: str, dtype: torch.dtype, autocast: bool) -> None:
    batch = {key: one.to(dtype) if one.is_floating_point() else one for key, one in drawn(6).items()}
    batch |= {key: torch.tensor(100.0) for key in ("logit_scale", "dist_logit_scale")}
    inputs = arguments(name, batch, ids=True)
    exact = arguments(name, {k: v.double() if v.is_floating_point() else v for k, v in batch.items()}, ids=True)
    expected = reference(name, exact)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = total(built(name, chunk_size=4)(**inputs, output_dict=True))
        grads = gradients(found, inputs)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected.detach(), rtol=1e-6, atol=1e-5)
    for key, one in gradients(expected, exact).items():
        assert grads[key].dtype == inputs[key].dtype
        rounding = torch.finfo(inputs[key].dtype).eps
        torch.testing.assert_close(grads[key].double(), one, rtol=2 * rounding, atol=1e-4 + rounding / 10)


# --- bias, weights, teacher, padding ---


@pytest.mark.parametrize("name", ["contrastive", "coca", "distillation"])
def test_a_softmax_ignores_biases_but_gives_them_a_gradient_of_zero(name: str) -> None:
    inputs = arguments(name, drawn(4), ids=False)
    value = total(built(name)(**inputs, output_dict=True))
    assert gradients(value, inputs)["logit_bias"].item() == 0
    inputs |= {key: one + 5 for key, one in inputs.items() if key in BIASED}
    assert torch.equal(total(built(name)(**inputs, output_dict=True)), value)


def test_the_sigmoid_loss_feels_its_bias() -> None:
    images, texts = features(4)
    scale, bias = scale_and_bias((), -3.0)
    assert SigLipLoss()(images, texts, scale, bias) != SigLipLoss()(images, texts, scale)


def test_a_teacher_gets_no_gradient() -> None:
    inputs = arguments("distillation", drawn(4), ids=False)
    total(built("distillation")(**inputs, output_dict=True)).backward()
    assert inputs["image_features"].grad is not None
    assert all(one.grad is None for key, one in inputs.items() if key.startswith("dist_"))


def test_a_student_that_equals_its_teacher_stands_at_the_minimum() -> None:
    images, texts = features(5, dtype=torch.float64)
    scale = torch.tensor(14.0, dtype=torch.float64)
    loss = DistillClipLoss(clip_loss_weight=0)
    loss(images, texts, scale, images, texts, scale, output_dict=True)["distill_loss"].backward()
    torch.testing.assert_close(images.grad, torch.zeros_like(images), rtol=0, atol=1e-14)


def test_a_contrastive_weight_of_zero_leaves_the_features_alone() -> None:
    inputs = arguments("coca", drawn(4), ids=False)
    contrastive, captions = CoCaLoss(1.0, 0.0, pad_id=0)(**inputs)
    assert contrastive.item() == 0
    assert contrastive.dtype == captions.dtype
    (contrastive + captions).backward()
    assert inputs["image_features"].grad is None
    assert inputs["logits"].grad is not None


def test_captions_of_padding_alone_cost_nothing() -> None:
    inputs = arguments("coca", drawn(4), ids=False) | {"labels": torch.full((4, 5), 3)}
    captions = built("coca")(**inputs, output_dict=True)["caption_loss"]
    assert captions.item() == 0
    assert torch.autograd.grad(captions, inputs["logits"])[0].abs().max() == 0


# --- what a loss is: built by name, copied, pickled, compiled ---


def test_public_classes_are_what_the_names_build() -> None:
    for name, loss_class in CLASSES.items():
        assert type(built(name)) is loss_class
        assert getattr(zoo, loss_class.__name__) is loss_class


@pytest.mark.parametrize("name", CLASSES)
def test_options_reach_the_loss_and_its_copies(name: str) -> None:
    loss: Any = built(name, chunk_size=3)
    inputs = arguments(name, drawn(5), ids=True)
    expected = total(loss(**inputs, output_dict=True))
    for one in (loss, copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert (one.chunk_size, one.group) == (3, None)
        assert OPTIONS[name].items() <= vars(one).items()
        assert torch.equal(total(one(**inputs, output_dict=True)), expected)
    assert "chunk_size=3" in repr(loss)
    assert not loss.state_dict()


@pytest.mark.parametrize("name", CLASSES)
def test_a_loss_compiles_as_one_graph(name: str) -> None:
    inputs = arguments(name, drawn(5), ids=True)
    torch.compiler.reset()
    compiled: Any = torch.compile(built(name, chunk_size=3), fullgraph=True, backend="aot_eager")
    found = total(compiled(**inputs, output_dict=True))
    expected = reference(name, inputs)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(gradients(found, inputs), gradients(expected, inputs), rtol=0, atol=1e-10)


# --- what is refused ---

WRONG: list[tuple[str, dict[str, Any], str]] = [
    (
        "contrastive",
        {"text_features": torch.zeros(3, 6)},
        "expected image and text features of one shape [B, D], found image_features [4, 6] and text_features [3, 6]",
    ),
    (
        "sigmoid",
        {"text_features": torch.zeros(4, 5)},
        "expected image and text features of one shape [B, D], found image_features [4, 6] and text_features [4, 5]",
    ),
    (
        "contrastive",
        {"image_features": torch.zeros(4), "text_features": torch.zeros(4)},
        "expected image and text features of one shape [B, D], found image_features [4] and text_features [4]",
    ),
    (
        "contrastive",
        {"image_features": torch.zeros(4, 6, dtype=torch.int64)},
        "image_features must be a floating-point tensor [B, D], found torch.int64 [4, 6]",
    ),
    ("sigmoid", {"text_features": None}, "text_features must be a floating-point tensor [B, D], found NoneType None"),
    (
        "contrastive",
        {"text_features": torch.zeros(4, 6, device="meta")},
        "text_features is on meta, but the image features are on cpu; move one of them",
    ),
    (
        "sigmoid",
        {"image_features": torch.zeros(0, 6), "text_features": torch.zeros(0, 6), "ids": None},
        "expected at least one pair, found an empty batch",
    ),
    ("contrastive", {"logit_scale": 14.0}, "logit_scale must be a floating-point tensor [] or [1], found float 14.0"),
    (
        "sigmoid",
        {"logit_scale": torch.ones(4)},
        "logit_scale must be a floating-point tensor [] or [1], found torch.float32 [4]",
    ),
    (
        "sigmoid",
        {"logit_scale": torch.ones(1, 1)},
        "logit_scale must be a floating-point tensor [] or [1], found torch.float32 [1, 1]",
    ),
    (
        "sigmoid",
        {"logit_scale": torch.ones((), device="meta")},
        "logit_scale is on meta, but the image features are on cpu; move one of them",
    ),
    (
        "sigmoid",
        {"logit_bias": torch.ones(2)},
        "logit_bias must be a floating-point tensor [] or [1], found torch.float32 [2]",
    ),
    (
        "contrastive",
        {"logit_bias": torch.tensor(3)},
        "logit_bias must be a floating-point tensor [] or [1], found torch.int64 []",
    ),
    (
        "sigmoid",
        {"weights": torch.ones(3)},
        "weights must be a floating-point tensor [4], one of each pair, found torch.float32 [3]",
    ),
    (
        "coca",
        {"weights": torch.ones(4, dtype=torch.int64)},
        "weights must be a floating-point tensor [4], one of each pair, found torch.int64 [4]",
    ),
    (
        "contrastive",
        {"ids": torch.zeros(4, dtype=torch.int32)},
        "ids must be a tensor of int64 [4], one of each pair, found torch.int32 [4]",
    ),
    (
        "sigmoid",
        {"ids": torch.zeros(3, dtype=torch.int64)},
        "ids must be a tensor of int64 [4], one of each pair, found torch.int64 [3]",
    ),
    (
        "contrastive",
        {"ids": torch.zeros(4, dtype=torch.int64, device="meta")},
        "ids is on meta, but the image features are on cpu; move one of them",
    ),
    (
        "coca",
        {"logits": torch.zeros(4, 9)},
        "logits must be a floating-point tensor [B, L, V], found torch.float32 [4, 9]",
    ),
    ("coca", {"labels": torch.zeros(4, 4).long()}, "labels must be a tensor of int64 [4, 5], found torch.int64 [4, 4]"),
    ("coca", {"labels": torch.zeros(4, 5)}, "labels must be a tensor of int64 [4, 5], found torch.float32 [4, 5]"),
    (
        "coca",
        {"labels": torch.zeros(4, 5, dtype=torch.int64, device="meta")},
        "labels are on meta, but logits on cpu; move one of them",
    ),
    (
        "coca",
        {"logits": torch.zeros(4, 0, 9), "labels": torch.zeros(4, 0).long()},
        "expected at least one caption token, found logits [4, 0, 9]",
    ),
    (
        "distillation",
        {"dist_image_features": torch.zeros(3, 6), "dist_text_features": torch.zeros(3, 6)},
        "expected as many pairs of the teacher as of the student, found [3] beside [4]",
    ),
    (
        "distillation",
        {"dist_text_features": torch.zeros(3, 8)},
        "expected image and text features of one shape [B, D], found dist_image_features [4, 8] "
        "and dist_text_features [3, 8]",
    ),
    (
        "distillation",
        {"dist_logit_scale": None},
        "dist_logit_scale must be a floating-point tensor [] or [1], found NoneType None",
    ),
    (
        "distillation",
        {"dist_logit_bias": torch.ones(3)},
        "dist_logit_bias must be a floating-point tensor [] or [1], found torch.float32 [3]",
    ),
]


@pytest.mark.parametrize(
    ("name", "wrong", "message"), WRONG, ids=[f"{name}-{next(iter(wrong))}" for name, wrong, _ in WRONG]
)
def test_a_wrong_tensor_is_told_in_one_line(name: str, wrong: dict[str, Any], message: str) -> None:
    inputs = arguments(name, single(drawn(4)), ids=True) | wrong
    with pytest.raises(InputError) as caught:
        built(name)(**inputs)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("loss_class", "options", "message"),
    [
        (ClipLoss, {"chunk_size": 0}, "chunk_size must be a whole number of at least 1, or None, found 0"),
        (SigLipLoss, {"chunk_size": True}, "chunk_size must be a whole number of at least 1, or None, found True"),
        (CoCaLoss, {"clip_loss_weight": -1}, "clip_loss_weight must be a finite number of at least 0, found -1"),
        (
            CoCaLoss,
            {"caption_loss_weight": float("inf")},
            "caption_loss_weight must be a finite number of at least 0, found inf",
        ),
        (CoCaLoss, {}, "pad_id must be the id of the padding, model.tokenizer.pad_id, found None"),
        (CoCaLoss, {"pad_id": True}, "pad_id must be the id of the padding, model.tokenizer.pad_id, found True"),
        (
            DistillClipLoss,
            {"distill_loss_weight": "1"},
            "distill_loss_weight must be a finite number of at least 0, found '1'",
        ),
        (
            DistillClipLoss,
            {"clip_loss_weight": float("nan")},
            "clip_loss_weight must be a finite number of at least 0, found nan",
        ),
    ],
)
def test_a_wrong_argument_is_told_in_one_line(loss_class: Any, options: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        loss_class(**options)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("contrastve", {}, "did you mean 'contrastive'"),
        ("hinge", {}, "allowed: coca, contrastive, distillation, sigmoid"),
        ("contrastive", {"temperature": 2}, "temperature: unknown key"),
        ("contrastive", {"chunksize": 2}, "chunksize: unknown key, did you mean 'chunk_size'"),
        ("sigmoid", {"chunk_size": 0}, "chunk_size: must be at least 1, found 0"),
        ("coca", {"clip_loss_weight": -1.0}, "clip_loss_weight: must be at least 0, found -1.0"),
        ("coca", {}, "loss: pad_id: required key is missing"),
        ("coca", {"pad_id": 0.5}, "pad_id: expected a whole number, found 0.5"),
        (
            "distillation",
            {"distill_loss_weight": float("nan")},
            "distill_loss_weight: expected a finite number, found nan",
        ),
    ],
)
def test_a_wrong_name_or_option_is_answered_with_the_right_one(name: str, options: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        zoo.loss(name, **options)
    assert message in str(caught.value)


def test_every_row_argument_of_the_references_is_one_of_some_loss() -> None:
    assert set(ROWS) <= {"weights", *(key for keys in ARGUMENTS.values() for key in keys)}
