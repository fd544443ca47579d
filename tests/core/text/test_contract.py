"""The text contract of every architecture: what the tower does, and what the peer's config says."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import open_clip
import pytest
import tokenizers
import torch
import transformers

import zoo
from support.models.declared_towers import dressed_as_clips
from support.models.tiny_configs import TINY
from zoo.catalog.architectures import architectures
from zoo_core.config import TextTowerConfig
from zoo_core.errors import ConfigError
from zoo_core.testing import BrokenPromiseError, check_component
from zoo_core.text.contract import TextContract, TextReading
from zoo_text.clip.config import ClipTextConfig
from zoo_text.clip.tower import TextTransformer

NAMES = zoo.list_models()


def told(name: str) -> TextContract:
    return zoo.config(name).text_contract()


@cache
def shallow(name: str) -> str:
    """Return the text section of an architecture as JSON, but with one layer: those that read alike are one."""
    section = zoo.config(name).text.data()
    if "config" in section:
        layers = {"num_hidden_layers", "encoder_layers", "num_layers", "decoder_layers"} & section["config"].keys()
        section["config"] |= dict.fromkeys(layers, 1)
    else:
        section["layers"] = 1
    return json.dumps(section, sort_keys=True)


def distinct() -> Iterator[str]:
    seen: set[str] = set()
    for name in NAMES:
        if shallow(name) not in seen:
            seen.add(shallow(name))
            yield name


@pytest.mark.parametrize("name", list(distinct()))
def test_rows_are_whole_exactly_where_the_contract_says_so(name: str) -> None:
    config = zoo.config(name).text
    section = type(config).parse(json.loads(shallow(name)))
    tower, contract = built(section, zoo.config(name).embed_dim), told(name)
    ids = torch.full((2, contract.context_length), tower.vocab_size - 1)
    assert (tower.read_lengths(ids) is None) == contract.fixed_length
    assert tower.context_length == contract.context_length
    if contract.padding == "masked":
        assert tower.pad_id is not None
        assert contract.pad_id in (None, tower.pad_id)
    else:
        assert tower.pad_id is None
    if contract.pooled_at == "end id":
        assert contract.end_id in (None, config.eos_id)


def built(config: TextTowerConfig, embed_dim: int) -> Any:
    with torch.device("meta"):
        return zoo.registry().get("text-tower", config.tower).build(config, embed_dim=embed_dim)


def in_the_peer() -> Iterator[tuple[str, str]]:
    theirs = set(open_clip.list_models())
    for one in architectures().entries:
        yield from ((one.name, alias) for alias in one.aliases if alias in theirs)


@pytest.mark.parametrize(("name", "peer"), list(in_the_peer()))
def test_the_contract_is_what_the_peers_config_says(name: str, peer: str) -> None:
    section = open_clip.get_model_config(peer)["text_cfg"]
    contract = told(name)
    cleaning = section.get("tokenizer_kwargs", {}).get("clean")
    if "eos_id" in section:
        assert contract.end_id == section["eos_id"]
    if "SigLIP" in section.get("hf_tokenizer_name", ""):  # ids of the peer's own SigLipTokenizer
        assert (contract.pad_id, contract.end_id) == (0 if "SigLIP2" in section["hf_tokenizer_name"] else 1, 1)
    if "hf_model_name" in section:
        assert contract.cleaning == (cleaning or "whitespace")
        assert (contract.causal, contract.padding, contract.fixed_length) == (False, "masked", False)
        mean = open_clip.CLIPTextCfg(**section).hf_pooler_type == "mean_pooler"
        assert contract.pooled_at == ("all kept tokens" if mean else "first position")
        return
    given = open_clip.CLIPTextCfg(**section)
    assert contract.context_length == given.context_length
    assert contract.causal == (not given.no_causal_mask)
    place = {"argmax": "largest id", "eos": "end id", "first": "first position", "last": "last position"}
    assert contract.pooled_at == ("class token" if given.embed_cls else place[given.pool_type])
    exact = contract.causal and not given.embed_cls and given.pool_type in ("argmax", "eos")
    assert contract.fixed_length == (not exact)
    assert contract.padding == ("masked" if given.embed_cls else "unreached" if exact else "read")
    if given.hf_tokenizer_name is None:
        assert (contract.cleaning, contract.pad_id, contract.end_id) == (cleaning or "lower", 0, 49_407)
    else:
        assert contract.cleaning == (cleaning or "whitespace")


@pytest.mark.parametrize("name", NAMES)
def test_every_rule_of_every_architecture_is_told(name: str) -> None:
    untold = {key for key, value in told(name).to_dict().items() if value is None}
    assert untold == ({"end_id"} if "clipa" in name else set())  # whose separator gives way to padding
    assert "not told by the config" not in dict(told(name).sentences()).values()


def tiny_tokenizer(folder: Path) -> str:
    """Save a tokenizer whose padding is 0 and whose end of text is 2."""
    words = {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "[UNK]": 3, "cat": 4}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    made.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    special = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=made, **special).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(
    ("ids", "sentence"),
    [
        ({"pad_id": 1}, "tokenizer.pad_id: tokenizer '.*' pads with id 0, not 1; set pad_id: 0"),
        (
            {"pad_id": 0, "eos_id": 4},
            "tokenizer.eos_id: tokenizer '.*' closes captions with id 2, not 4; set eos_id: 2",
        ),
    ],
)
def test_a_tokenizer_of_other_ids_than_its_config_says_is_refused(
    ids: dict[str, int], sentence: str, tmp_path: Path
) -> None:
    section = {"type": "hf", "name": tiny_tokenizer(tmp_path / "tokenizer"), "vocab_size": 5}
    fitting = zoo.build(TINY, overrides=said(section | {"pad_id": 0, "eos_id": 2}), towers=("text",))
    assert fitting.tokenizer("cat", context_length=4).tolist() == [[1, 4, 2, 0]]
    assert (fitting.text_contract.pad_id, fitting.text_contract.end_id) == (0, 2)
    with pytest.raises(ConfigError, match=sentence):
        zoo.build(TINY, overrides=said(section | ids), towers=("text",)).tokenizer("cat")


def said(tokenizer: dict[str, Any]) -> list[str]:
    text = ["text.vocab_size=5", "text.pool_type=last"]
    return [*text, *(f"tokenizer.{key}={value}" for key, value in tokenizer.items())]


CLASHES = {
    "the end": (["text.pool_type=eos", "text.eos_id=3"], "text.eos_id: 3 is not the end of text of tokenizer 'hf'"),
    "the largest": (["text.pool_type=argmax"], "text.pool_type: 'argmax' reads the feature at the largest id, but"),
    "the vocabulary": (["tokenizer.eos_id=7"], "tokenizer.eos_id: 7 is none of the 5 token ids"),
}


@pytest.mark.parametrize("case", CLASHES)
def test_tower_and_tokenizer_are_held_to_each_other_before_a_file_is_read(case: str) -> None:
    overrides, sentence = CLASHES[case]
    section = {"type": "hf", "name": "never/loaded", "vocab_size": 5, "pad_id": 0, "eos_id": 2}
    with pytest.raises(ConfigError, match=sentence):
        zoo.config(TINY, [*said(section), *overrides])


@pytest.mark.parametrize(
    "name", ["vit-b32", "vit-b16-siglip", "coca-vit-b32", "roberta-vit-b32", "moderntext-vit-b32-256"]
)
def test_a_contract_is_plain_data_and_every_rule_has_words(name: str) -> None:
    contract = told(name)
    assert TextContract(**json.loads(json.dumps(contract.to_dict()))) == contract
    assert all(rule and words for rule, words in contract.sentences())
    with pytest.raises(dataclasses.FrozenInstanceError):
        contract.context_length = 3  # pyright: ignore[reportAttributeAccessIssue]


def test_the_words_tell_where_padding_counts() -> None:
    clip, siglip = dict(told("vit-b32").sentences()), dict(told("vit-b16-siglip").sentences())
    assert clip["rows"] == "77 ids, cut behind the last that counts, which changes nothing"
    assert clip["padding"] == "id 0, behind all that the model looks at"
    assert clip["feature at"] == "largest id (49407)"
    assert siglip["rows"] == "64 ids, always whole"
    assert siglip["padding"] == "id 1, the model looks at it"
    assert siglip["text"] == "mended, lower case, without ASCII punctuation"


@pytest.mark.parametrize("name", ["vit-b32", "vit-b16-siglip"])
def test_special_tokens_in_a_caption_are_text_unless_asked_for(name: str) -> None:
    asked = zoo.config(name, ["tokenizer.special_tokens_in_text=true"]).text_contract()
    assert dict(told(name).sentences())["special tokens in it"] == "are text"
    assert dict(asked.sentences())["special tokens in it"] == "become their ids, as in open_clip"


def test_a_model_knows_its_contract() -> None:
    model = zoo.build(TINY, towers=("text",))
    assert model.text_contract == zoo.config(TINY).text_contract()
    model.config = None
    assert model.text_contract is None


class Whole(ClipTextConfig):
    def reading(self) -> TextReading:
        return dataclasses.replace(super().reading(), fixed_length=True)


class SeesAhead(ClipTextConfig):
    def reading(self) -> TextReading:
        return dataclasses.replace(super().reading(), causal=False)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (Whole, "reading() tells fixed_length True, but read_lengths gives lengths"),
        (SeesAhead, "reading() tells causal False, but tokens do not depend on later ids"),
    ],
)
def test_the_kit_tells_a_config_that_says_another_thing_than_its_tower(config: type, sentence: str) -> None:
    component = dressed_as_clips(config, TextTransformer)
    with pytest.raises(BrokenPromiseError) as raised:
        check_component(component, {"context_length": 6, "vocab_size": 20, "width": 16, "layers": 2, "heads": 2})
    assert sentence in str(raised.value)
