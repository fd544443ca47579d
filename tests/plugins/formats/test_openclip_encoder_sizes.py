"""Text encoders outside of open_clip's own configs: their sizes are read from their files, their features are equal."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import open_clip
import pytest
import torch

import zoo
from support.peer import randomized
from support.tokenizers.tiny_tokenizers import byte_bpe, ours, wordpiece
from zoo.transfer.import_config import import_architecture
from zoo_core.errors import ConfigError, DownloadError

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
KINDS = {
    "bert": (wordpiece, "cls_last_hidden_state_pooler", "mlp", {"pad_token_id": 0}),
    "roberta": (byte_bpe, "mean_pooler", "linear", {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}),
}
CAPTIONS = ["a photo of a cat", "Two dogs play in the snow near the old bridge!", ""]


def encoder_folder(kind: str, folder: Path, size: int = 400) -> Path:
    """Write a tokenizer and the config of an encoder with more embeddings than the tokenizer has ids."""
    make, *_, ids = KINDS[kind]
    make(folder)
    published = {"model_type": kind, "vocab_size": size, "max_position_embeddings": 64, **SIZES, **ids}
    (folder / "config.json").write_text(json.dumps(published))
    return folder


def open_clip_config(kind: str, name: str) -> dict[str, Any]:
    _, pooler, projection, _ = KINDS[kind]
    text = {"hf_model_name": name, "hf_tokenizer_name": name, "hf_model_pretrained": False, "context_length": 24}
    return {
        "embed_dim": 12,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
        "text_cfg": text | {"hf_pooler_type": pooler, "hf_proj_type": projection},
    }


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_a_local_encoder_has_the_features_of_open_clip(kind: str, tmp_path: Path) -> None:
    folder = encoder_folder(kind, tmp_path / "encoder")
    config = open_clip_config(kind, str(folder))
    theirs: Any = open_clip.CustomTextCLIP(**json.loads(json.dumps(config)))
    randomized(theirs, seed=3).eval()
    (tmp_path / "theirs.json").write_text(json.dumps(config))
    torch.save(theirs.state_dict(), tmp_path / "weights.pt")
    architecture = import_architecture("open_clip", tmp_path / "theirs.json")
    assert architecture["text"]["vocab_size"] == 400
    assert architecture["tokenizer"]["vocab_size"] == ours(folder).vocab_size
    model: Any = zoo.build(architecture, pretrained=tmp_path / "weights.pt")
    ids = open_clip.tokenizer.HFTokenizer(str(folder), context_length=24)(CAPTIONS)
    assert torch.equal(model.tokenizer(CAPTIONS), ids)
    image = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(model.encode_text(ids), theirs.encode_text(ids))
        assert (model.encode_image(image) - theirs.encode_image(image)).abs().max() <= 1e-5


def test_an_encoder_in_the_hubs_cache_is_found_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = tmp_path / "models--acme--bert" / "snapshots" / ("a" * 40)
    snapshot.parent.mkdir(parents=True)
    encoder_folder("bert", snapshot)
    (tmp_path / "models--acme--bert" / "refs").mkdir()
    (tmp_path / "models--acme--bert" / "refs" / "main").write_text("a" * 40)
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "zoo"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.file_download, "constants", huggingface_hub.constants)
    (tmp_path / "theirs.json").write_text(json.dumps(open_clip_config("bert", "acme/bert")))
    found = import_architecture("open_clip", tmp_path / "theirs.json")
    assert (found["text"]["name"], found["text"]["vocab_size"]) == ("acme/bert", 400)
    assert found["tokenizer"]["vocab_size"] == ours(snapshot).vocab_size


def test_an_encoder_that_cannot_be_had_is_named_with_what_to_do(tmp_path: Path) -> None:
    config = open_clip_config("bert", "acme/no-such-bert")
    path = tmp_path / "theirs.json"
    path.write_text(json.dumps(config))
    with pytest.raises(DownloadError) as caught:
        import_architecture("open_clip", path)
    assert str(caught.value) == (
        "acme/no-such-bert: config.json: it is not in the local cache, and HF_HUB_OFFLINE is set; "
        "run `hf download acme/no-such-bert config.json` where there is a network, or name a folder that holds it, such "
        "as ./no-such-bert, or state the size that it tells: text_cfg: {hf_model_config: {vocab_size: ...}}"
    )
    config["text_cfg"] |= {"hf_model_config": {"vocab_size": 400}, "vocab_size": 120}  # as the error advises
    path.write_text(json.dumps(config))
    found = import_architecture("open_clip", path)
    assert (found["text"]["vocab_size"], found["tokenizer"]["vocab_size"]) == (400, 120)


@pytest.mark.parametrize("name", ["roberta-base", "FacebookAI/roberta-base"])
def test_the_encoders_of_open_clip_need_no_network(name: str, tmp_path: Path) -> None:
    (tmp_path / "theirs.json").write_text(json.dumps(open_clip_config("roberta", name)))
    found = import_architecture("open_clip", tmp_path / "theirs.json")
    assert (found["text"]["name"], found["text"]["vocab_size"], found["tokenizer"]["pad_id"]) == (name, 50_265, 1)


@pytest.mark.parametrize("content", ["{}", '{"vocab_size": "many"}', '{"vocab_size": true}'])
def test_a_config_without_a_size_is_refused(content: str, tmp_path: Path) -> None:
    folder = encoder_folder("bert", tmp_path / "encoder")
    (folder / "config.json").write_text(content)
    (tmp_path / "theirs.json").write_text(json.dumps(open_clip_config("bert", str(folder))))
    with pytest.raises(
        ConfigError, match=r"text_cfg\.hf_model_name: '.*' has no config\.json with a vocab_size; state"
    ):
        import_architecture("open_clip", tmp_path / "theirs.json")


def test_a_tokenizer_without_tokenizer_json_is_counted_by_its_words(tmp_path: Path) -> None:
    folder = encoder_folder("bert", tmp_path / "encoder")
    size = ours(folder).vocab_size
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    (folder / "vocab.txt").write_text("".join(f"word{number}\n" for number in range(size)))
    (tmp_path / "theirs.json").write_text(json.dumps(open_clip_config("bert", str(folder))))
    assert import_architecture("open_clip", tmp_path / "theirs.json")["tokenizer"]["vocab_size"] == size
    shutil.rmtree(folder)
