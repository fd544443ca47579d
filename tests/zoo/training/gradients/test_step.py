"""A step gives the gradient of the loss, whatever the model stands in, and refuses what would train another model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

import zoo
from support.models.families import model_of, pictures, words
from zoo.training.gradients.step import clamp_logit_scale, contrastive_step, seed_step
from zoo_core.errors import InputError
from zoo_core.interfaces import Tower
from zoo_core.models.dual_encoder import DualEncoder
from zoo_core.models.modality import Modality
from zoo_core.models.towers import IMAGE_AND_TEXT
from zoo_core.plugin import ModalitySpec

BATCH = 6


def trained(family: str = "ViT CLIP") -> Any:
    return model_of(family).train()


def batch(model: Any, count: int = BATCH) -> dict[str, Any]:
    return {"image": pictures(model, count), "text": words(model, count)}


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("family", ["ViT CLIP", "CustomTextCLIP"])
@pytest.mark.parametrize("kind", ["contrastive", "sigmoid"])
def test_a_step_adds_the_gradient_of_the_loss(family: str, kind: str) -> None:
    ours, by_hand = trained(family), trained(family)
    inputs, loss = batch(ours), zoo.loss(kind)
    result = contrastive_step(ours, loss, inputs)
    by_hand.output_dict = True
    outputs = by_hand(**inputs)
    value = loss(outputs["image_features"], outputs["text_features"], outputs["logit_scale"], outputs.get("logit_bias"))
    value.backward()
    assert torch.equal(result.loss, value.detach()) and not result.loss.requires_grad
    assert torch.equal(result.logit_scale, outputs["logit_scale"].detach())
    for name, gradient in gradients(by_hand).items():
        assert torch.equal(gradients(ours)[name], gradient), name


def test_a_second_step_adds_to_the_gradients_of_the_first() -> None:
    model = trained()
    contrastive_step(model, zoo.loss("contrastive"), batch(model))
    once = {name: gradient.clone() for name, gradient in gradients(model).items()}
    contrastive_step(model, zoo.loss("contrastive"), batch(model))
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, 2 * once[name])


def test_the_parts_of_a_captioning_loss_add_up_to_the_whole() -> None:
    ours, by_hand = trained("CoCa"), trained("CoCa")
    inputs, loss = batch(ours), zoo.loss("coca", pad_id=0)
    result = contrastive_step(ours, loss, inputs)
    outputs = by_hand(**inputs)
    parts = loss(*(outputs[name] for name in ("image_features", "text_features", "logits", "labels", "logit_scale")))
    sum(parts).backward()
    assert list(result.losses) == ["contrastive_loss", "caption_loss"]
    torch.testing.assert_close(tuple(result.losses.values()), tuple(part.detach() for part in parts))
    torch.testing.assert_close(result.loss, sum(parts).detach())
    torch.testing.assert_close(gradients(ours), gradients(by_hand))


def test_pairs_of_one_id_are_positives_of_each_other() -> None:
    model, loss, ids = trained(), zoo.loss("contrastive"), torch.tensor([0, 0, 1, 2, 3, 4])
    result = contrastive_step(model, loss, batch(model), ids=ids)
    model.output_dict = True
    outputs = model(**batch(model))
    expected = loss(outputs["image_features"], outputs["text_features"], outputs["logit_scale"], ids=ids)
    assert torch.equal(result.loss, expected.detach())


FAMILY_OF = {"contrastive": "ViT CLIP", "sigmoid": "CustomTextCLIP", "coca": "CoCa"}


@pytest.mark.parametrize("kind", FAMILY_OF)
def test_a_pair_without_weight_adds_nothing_of_its_own(kind: str) -> None:
    loss = zoo.loss(kind, **({"pad_id": 0} if kind == "coca" else {}))
    model = trained(FAMILY_OF[kind]).double().eval()
    inputs = batch(model)
    inputs["image"] = inputs["image"].double()
    plain = contrastive_step(model, loss, inputs).loss
    rows = torch.eye(BATCH, dtype=torch.float64)
    parts = [contrastive_step(model, loss, inputs, weights=row).loss for row in rows]
    torch.testing.assert_close(sum(parts), plain)
    assert contrastive_step(model, loss, inputs, weights=torch.zeros(BATCH)).loss == 0


def test_a_compiled_model_is_trained_as_it_is() -> None:
    plain, compiled = trained(), trained()
    wrapper = torch.compile(compiled, backend="aot_eager")
    for model, callee in ((plain, plain), (compiled, wrapper)):
        contrastive_step(callee, zoo.loss("contrastive"), batch(model))
    torch.testing.assert_close(gradients(compiled), gradients(plain))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_computes_in_it_and_leaves_gradients_in_float32(precision: Any) -> None:
    model, exact = trained(), trained()
    expected = contrastive_step(exact, zoo.loss("contrastive"), batch(model))
    result = contrastive_step(model, zoo.loss("contrastive"), batch(model), precision=precision)
    assert {gradient.dtype for gradient in gradients(model).values()} == {torch.float32}
    assert result.loss.dtype == torch.float32 and not torch.equal(result.loss, expected.loss)
    torch.testing.assert_close(result.loss, expected.loss, rtol=0.05, atol=0.05)


def test_the_loss_scale_is_a_factor_of_the_gradients_alone() -> None:
    model, plain = trained(), trained()
    scaled = contrastive_step(model, zoo.loss("contrastive"), batch(model), loss_scale=8.0)
    assert torch.equal(scaled.loss, contrastive_step(plain, zoo.loss("contrastive"), batch(model)).loss)
    for name, gradient in gradients(plain).items():
        torch.testing.assert_close(gradients(model)[name], 8 * gradient)


def test_model_randomness_is_a_function_of_seed_step_and_rank() -> None:
    draws = []
    for numbers in ((0, 1, 0), (0, 1, 0), (1, 1, 0), (0, 2, 0), (0, 1, 1)):
        seed_step(*numbers)
        draws.append(torch.rand(4))
    assert torch.equal(draws[0], draws[1])
    assert all(not torch.equal(draws[0], draw) for draw in draws[2:])


@pytest.mark.parametrize("numbers", [(-1, 0, 0), (0, -2, 0), (0, 0, -3)])
def test_numbers_that_seed_nothing_are_refused(numbers: tuple[int, int, int]) -> None:
    with pytest.raises(InputError, match=r"^(seed|step|rank) must not be negative, found -"):
        seed_step(*numbers)


def test_the_logit_scale_is_kept_within_its_bounds() -> None:
    model = trained()
    for start, expected in ((0.5, 1.0), (20.0, 20.0), (500.0, 100.0)):
        model.logit_scale.data.fill_(torch.tensor(start).log())
        clamp_logit_scale(model, 1.0, 100.0)
        torch.testing.assert_close(model.logit_scale.exp(), torch.tensor([expected]))
    model.logit_scale.data.fill_(torch.tensor(500.0).log())
    clamp_logit_scale(model, 1.0, None)
    torch.testing.assert_close(model.logit_scale.exp(), torch.tensor([500.0]))


class DepthTower(Tower):
    """Gives the feature of maps of depth `[B, 4]`."""

    modality, output_dim = "depth", 16

    def __init__(self) -> None:
        super().__init__()
        self.proj = torch.nn.Linear(4, 16)

    def forward(self, depth: torch.Tensor) -> torch.Tensor:
        return self.proj(depth)


class DepthModality(Modality):
    def check(self, batch: Any, tower: Any) -> None:
        pass

    def example(self, tower: Any, count: int, processor: Any = None) -> torch.Tensor:
        return torch.randn(count, 4)

    def probe_inputs(self) -> Any:
        return [torch.zeros(4)]


@pytest.mark.parametrize("chunk", [None, 4, {"depth": 2}])
@pytest.mark.parametrize("pair", [("image", "depth"), ("depth", "text"), ("image", "text")])
def test_the_pair_of_the_inputs_is_trained_whatever_its_modalities(pair: tuple[str, str], chunk: Any) -> None:
    spec = ModalitySpec("depth", handler="a:B", tower_config="a:B", processor_config="a:B")
    modalities = {**IMAGE_AND_TEXT, "depth": DepthModality(spec)}
    source = trained("CustomTextCLIP")
    torch.manual_seed(0)
    model = DualEncoder.from_towers({**source.towers, "depth": DepthTower()}, modalities=modalities).train()
    inputs = {"image": pictures(source, 6), "text": words(source, 6), "depth": torch.randn(6, 4)}
    inputs = {name: inputs[name] for name in pair}
    by_hand, loss = copy.deepcopy(model), zoo.loss("contrastive")
    if isinstance(chunk, dict) and "depth" not in pair:
        chunk = None
    result = contrastive_step(model, loss, inputs, chunk=chunk)
    ordered = sorted(pair, key=list(modalities).index)
    features = [by_hand.encode(name, inputs[name], normalize=True) for name in ordered]
    value = loss(*features, by_hand.logit_scale.exp())
    value.backward()
    torch.testing.assert_close(result.loss, value.detach())
    assert gradients(model).keys() == gradients(by_hand).keys()
    for name, gradient in gradients(by_hand).items():
        torch.testing.assert_close(gradients(model)[name], gradient, rtol=1e-4, atol=1e-5, msg=name)


def half_of(model: Any) -> Any:
    return model.to(torch.bfloat16)


REFUSED: dict[str, tuple[Callable[[Any], dict[str, Any]], str]] = {
    "no model": (lambda model: {"model": torch.nn.Linear(2, 2)}, "expected a model of zoo, bare or in DDP"),
    "half-precision parameters": (
        lambda model: {"model": half_of(model)},
        "is trained in bfloat16, which loses small updates; call model.float()",
    ),
    "one modality": (lambda model: {"inputs": {"image": pictures(model)}}, "found image"),
    "no modality": (lambda model: {"inputs": {}}, "found none"),
    "an unknown modality": (
        lambda model: {"inputs": {**batch(model), "sound": 1}},
        "expected inputs of two modalities out of image, text, found image, text, sound",
    ),
    "a loss of captions": (
        lambda model: {"loss": zoo.loss("coca", pad_id=0)},
        "the loss CoCaLoss reads logits and labels, which the model does not give",
    ),
    "weights for a loss that takes none": (
        lambda model: {"loss": lambda a, b, scale, bias=None: a.sum(), "weights": torch.ones(BATCH)},
        "the loss function takes no weights of pairs; leave them out",
    ),
    "no loss": (
        lambda model: {"loss": "contrastive"},
        "expected a loss of zoo.loss, or any function of features, found",
    ),
    "an unknown precision": (lambda model: {"precision": "fp8"}, "precision must be"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_go_together_is_refused(case: str) -> None:
    change, message = REFUSED[case]
    model = trained()
    model.output_dict = True
    arguments: dict[str, Any] = {"model": model, "loss": zoo.loss("contrastive"), "inputs": batch(model)}
    with pytest.raises(InputError, match="(?s)" + message.replace("(", r"\(").replace(")", r"\)")):
        contrastive_step(**(arguments | change(model)))


def test_a_frozen_tower_may_be_in_half_precision() -> None:
    model = trained("CustomTextCLIP")
    model.lock_image_tower()
    model.visual.to(torch.bfloat16)
    contrastive_step(model, zoo.loss("contrastive"), batch(model))
    assert not any(name.startswith("visual.") for name in gradients(model))
