"""Towers by modality: a view of published children, one general way to encode, and models of any modalities."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch

import zoo
from support.models.tiny_configs import TINY, changed
from zoo_core.errors import ConfigError, InputError, PluginError
from zoo_core.models.dual_encoder import DualEncoder
from zoo_core.models.image_inputs import ImageModality
from zoo_core.models.modality import Processor
from zoo_core.plugin import ModalitySpec


@pytest.fixture(scope="module")
def model() -> Any:
    return zoo.build(TINY)


ANY = {**TINY, "model": "dual-encoder"}


def test_towers_are_the_published_children(model: Any) -> None:
    assert model.towers == {"image": model.visual, "text": model.text}
    assert list(zoo.build(TINY, towers=("text",)).towers) == ["text"]
    other = copy.deepcopy(model)
    other.visual = torch.nn.Identity()  # as libraries do that wrap a tower
    assert other.towers["image"] is other.visual


def test_encode_is_what_encode_image_and_encode_text_are(model: Any) -> None:
    images, captions = torch.rand(2, 3, 32, 32), ["a cat", "two dogs"]
    for normalize in (False, True):
        assert torch.equal(model.encode("image", images, normalize), model.encode_image(images, normalize))
        assert torch.equal(model.encode("text", captions, normalize), model.encode_text(captions, normalize))
    with pytest.raises(InputError, match="captions have more than 16 tokens"):
        model.encode("text", ["a cat " * 20], overflow="error")


def test_an_unknown_modality_is_told_with_those_of_the_model(model: Any) -> None:
    with pytest.raises(InputError, match="this model has no modality 'depth'; allowed: image, text"):
        model.encode("depth", torch.rand(1, 1, 4, 4))
    with pytest.raises(InputError, match="this model was built without its image tower; add 'image' to towers"):
        zoo.build(TINY, towers=("text",)).encode("image", torch.rand(1, 3, 32, 32))


def test_inputs_of_a_modality_that_the_model_lacks_are_refused_by_name(model: Any) -> None:
    with pytest.raises(InputError, match="this model has no modality 'images'; allowed: image, text"):
        model(images=torch.rand(1, 3, 32, 32))
    with pytest.raises(InputError, match="this model has no modality 'depth'; allowed: image, text"):
        model(text=["a cat"], depth=None)
    other = copy.copy(model)
    other.modalities = {"text": model.modalities["text"]}
    for scores in (other.get_logits, other.probabilities):
        with pytest.raises(InputError, match="this model has no modality 'image'; allowed: text"):
            scores("none.png", ["a cat", "two dogs"])


TAKEN = {
    "of torch": {"module": "training"},
    "of every model": {"module": "logit_scale"},
    "set later": {"processor": "config"},
    "a method": {"processor": "encode"},
    "of images": {"module": "visual"},
    "its own": {"module": "sound", "processor": "sound"},
}


@pytest.mark.parametrize("names", TAKEN.values(), ids=TAKEN)
def test_a_modality_stands_where_a_model_has_nothing_else(model: Any, names: dict[str, str]) -> None:
    field, attribute = list(names.items())[-1]
    parts = dict.fromkeys(("handler", "tower_config", "processor_config"), "acme.parts:Part")
    modality = ImageModality(ModalitySpec("depth", **parts, **names))
    message = f"modality 'depth': its {field} '{attribute}' is what the model calls something else"
    with pytest.raises(PluginError, match=message):
        DualEncoder(model.towers, modalities={**model.modalities, "depth": modality})


def test_a_tower_is_locked_by_its_modality(model: Any) -> None:
    other = copy.deepcopy(model)
    other.lock_tower("text", 1)
    expected = copy.deepcopy(model)
    expected.lock_text_tower(1)
    assert [one.requires_grad for one in other.parameters()] == [one.requires_grad for one in expected.parameters()]


def test_a_dual_encoder_of_images_and_text_is_custom_text_clip() -> None:
    torch.manual_seed(0)
    found = zoo.build(ANY)
    torch.manual_seed(0)
    expected = zoo.build({**TINY, "model": "custom-text-clip"})
    state = expected.state_dict()
    assert list(found.state_dict()) == list(state)
    assert all(torch.equal(value, state[key]) for key, value in found.state_dict().items())
    assert found.config.parameter_count() == expected.config.parameter_count()


def test_its_config_is_data_that_comes_back() -> None:
    config = zoo.config(ANY)
    assert list(config.towers) == sorted(config.processors) == ["image", "text"]
    assert zoo.config(config.data()) == config
    assert pickle.loads(pickle.dumps(config)) == copy.deepcopy(config) == config
    assert list(config.data())[:7] == list(zoo.config(TINY).data())[:7]


WRONG = {
    "misspelt section": ({"visoin": {"tower": "vit"}}, "visoin: unknown key, did you mean 'vision'?"),
    "no section": ({"text": 3}, "text: expected a section with the key 'tower', found 3"),
    "key of a section": ({"text": {**TINY["text"], "widht": 3}}, "text.widht: unknown key, did you mean 'width'?"),
    "unknown tower": ({"vision": {"tower": "vti"}}, "vision.tower: unknown vision-tower 'vti', did you mean 'vit'?"),
    "two problems": ({"embed_dim": "x", "depth": {}}, "depth: unknown key"),
    "tower and tokenizer": ({"tokenizer": {"type": "clip-bpe"}}, "text.vocab_size: 600 rows are too few"),
    "no tokenizer": ({"tokenizer": None}, "tokenizer: required key is missing"),
    "no tower": ({"vision": None}, "vision: required key is missing"),
    "one tower": ({"vision": None, "preprocess": None}, "model: needs towers of two modalities or more, found text"),
}


@pytest.mark.parametrize(("changes", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_architecture_is_refused(changes: dict[str, Any], message: str) -> None:
    data = {key: value for key, value in (ANY | changes).items() if value is not None}
    with pytest.raises(ConfigError) as raised:
        zoo.config(data)
    assert message in str(raised.value)


def test_all_problems_of_sections_and_keys_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as raised:
        zoo.config({**ANY, "embed_dim": "x", "visoin": {}, "tokenizer": {"type": "clip"}})
    assert {problem.key for problem in raised.value.problems} == {"embed_dim", "visoin", "tokenizer.type"}


def test_overrides_reach_its_sections() -> None:
    assert zoo.config(ANY, ["vision.layers=1"]).vision.layers == 1
    assert zoo.config(changed(model="dual-encoder", text={"layers": 1})).text.layers == 1


class Doubled(Processor):
    def __call__(self, raw: Any) -> torch.Tensor:
        if raw == "bad":
            raise InputError("bad is no number")
        return torch.tensor([2.0 * raw])


def test_a_processor_makes_batches_and_says_which_input_is_wrong() -> None:
    assert Doubled().batch([1, 2]).tolist() == [[2.0], [4.0]]
    with pytest.raises(InputError, match=r"inputs\[1\]: bad is no number"):
        Doubled().batch([1, "bad"])
    with pytest.raises(InputError, match="expected at least one input, found none"):
        Doubled().batch([])


class Repeated(Processor):
    def __call__(self, raw: Any) -> torch.Tensor:
        return torch.zeros(raw)


def test_inputs_that_are_no_batch_are_told_by_their_shapes() -> None:
    with pytest.raises(InputError, match=r"of one shape, but inputs\[0\] is \[2\] and inputs\[1\] is \[3\]"):
        Repeated().batch([2, 3])
