"""Folders of transformers that hold one tower without a projection, and folders that hold no model of ours."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import zoo
from support.checkpoints.foreign import assert_close
from support.checkpoints.transformers_folders import IMAGES, captions, images, randomized, saved, transformers_model
from support.hf_hub_server import used
from zoo_core.errors import ConfigError, DownloadError, UnknownNameError, ZooError

Json = dict[str, Any]

CLASSES = {"image": "CLIPVisionModel", "text": "CLIPTextModel"}


def tower_alone(side: str, folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """Fill a folder with a tower without a projection, and return it."""
    import transformers

    config = transformers_model("clip").config
    theirs = randomized(
        getattr(transformers, CLASSES[side])(config.vision_config if side == "image" else config.text_config)
    )
    saved(theirs.to(dtype), folder, "clip")
    return theirs


def with_a_prefix(side: str, folder: Path) -> None:
    """Name weights as versions before 5 did."""
    prefix = "vision_model." if side == "image" else "text_model."
    path = folder / "model.safetensors"
    tensors = {f"{prefix}{key}": one for key, one in load_file(path).items()}
    tensors[f"{prefix}embeddings.position_ids"] = torch.arange(4)[None]
    save_file(tensors, path)


@pytest.mark.parametrize("prefixed", [False, True])
@pytest.mark.parametrize("side", CLASSES)
def test_a_tower_without_a_projection_gives_its_pooled_token_and_its_tokens(
    side: str, prefixed: bool, tmp_path: Path
) -> None:
    theirs = tower_alone(side, tmp_path)
    if prefixed:
        with_a_prefix(side, tmp_path)
    ours = zoo.build(tmp_path, towers=(side,))
    given = images() if side == "image" else captions()
    options: Json = {"image_output_fmt": "NLC", "image_output_extra_tokens": True, "normalize": False}
    with torch.no_grad():
        output = theirs(given, output_hidden_states=True)
        found = ours.forward_intermediates(**{side: given}, **options)
    assert_close(found[f"{side}_features"], output.pooler_output)
    tokens = found[f"{side}_intermediates"][-1]
    if side == "image":
        tokens = torch.cat([found["image_intermediates_prefix"][-1], tokens], dim=1)
    assert_close(tokens, output.hidden_states[-1])
    assert ours.config.embed_dim == theirs.config.hidden_size


@pytest.mark.parametrize("side", CLASSES)
def test_such_a_tower_keeps_its_dtype(side: str, tmp_path: Path) -> None:
    theirs = tower_alone(side, tmp_path, torch.bfloat16)
    ours: Any = zoo.build(tmp_path, towers=(side,))
    given = images().bfloat16() if side == "image" else captions()
    with torch.no_grad():
        found = getattr(ours, f"encode_{side}")(given, normalize=False)
        assert found.dtype == torch.bfloat16
        assert torch.nn.functional.cosine_similarity(found.float(), theirs(given).pooler_output.float()).min() > 0.999


@pytest.mark.parametrize("side", CLASSES)
def test_the_other_tower_of_such_a_folder_is_not_made_up(side: str, tmp_path: Path) -> None:
    tower_alone(side, tmp_path)
    with pytest.raises(ZooError, match=re.escape(f"towers=('{side}',)")):
        zoo.build(tmp_path)


def test_a_siglip_without_its_head_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "siglip_vision_model",\n"vision_use_head": false}')
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(IMAGES["siglip"]))
    with pytest.raises(
        ConfigError, match=r"config.json:2:1: vision_use_head: without its pooling head the tower gives"
    ):
        zoo.build(tmp_path)


@pytest.mark.parametrize("name", ["CLIPForImageClassification", "SiglipForImageClassification"])
def test_a_classifier_of_images_is_refused_by_its_name(name: str, tmp_path: Path) -> None:
    model_type = name.removesuffix("ForImageClassification").lower()
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type, "architectures": [name]}))
    (tmp_path / "preprocessor_config.json").write_text("{}")
    with pytest.raises(ConfigError, match=rf"config.json:1:\d+: architectures: \['{name}'\] sorts images"):
        zoo.build(tmp_path, towers=("image",))


@pytest.mark.parametrize("as_path", [False, True])
def test_a_model_type_that_nobody_reads_is_named(as_path: bool, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "chinese_clip"}')
    with pytest.raises(UnknownNameError) as error:
        zoo.build(tmp_path if as_path else str(tmp_path))
    assert "model_type: 'chinese_clip', which no installed plugin reads (read are clip, " in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["{", '{"model_type": {"a": 1}}', "[]"])
def test_a_config_that_is_none_is_told_too(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ZooError, match=r"config\.json"):
        zoo.build(str(tmp_path))


@pytest.mark.parametrize("as_path", [False, True])
def test_a_folder_of_sentence_transformers_points_at_the_model_in_it(as_path: bool, tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text(json.dumps([{"idx": 0, "name": "0", "path": "0_CLIPModel"}]))
    theirs = transformers_model("clip")
    saved(theirs, tmp_path / "0_CLIPModel", "clip")
    with pytest.raises(UnknownNameError) as error:
        zoo.build(tmp_path if as_path else str(tmp_path))
    advice = re.search(r"zoo\.build\('(.*)'\)$", str(error.value))
    assert advice is not None
    with torch.no_grad():
        expected = theirs(input_ids=captions(), pixel_values=images()).image_embeds
        assert_close(zoo.build(advice[1]).encode_image(images(), normalize=True), expected)


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Serve a folder as the repository `acme/served` of a Hub."""
    folder = tmp_path / "served"
    folder.mkdir()
    with used(tmp_path, monkeypatch) as hub:
        hub.repositories["acme/served"] = {"main": folder}
        yield folder


def test_a_repository_of_sentence_transformers_points_at_the_model_in_it(served: Path, tmp_path: Path) -> None:
    from huggingface_hub import snapshot_download

    (served / "modules.json").write_text("[]")
    saved(transformers_model("clip"), served / "0_CLIPModel", "clip")
    with pytest.raises(DownloadError) as error:
        zoo.build("hf-hub:acme/served")
    form = r"`hf download (\S+) --include '(\S+)' --local-dir FOLDER`, then zoo.build\('FOLDER/(\S+)'\)"
    advice = re.search(form, str(error.value))
    assert advice is not None
    repository, pattern, inner = advice.groups()
    snapshot_download(repository, allow_patterns=[pattern], local_dir=tmp_path / "FOLDER")
    assert zoo.build(tmp_path / "FOLDER" / inner).config.embed_dim == 16


def test_a_repository_of_a_model_type_that_nobody_reads_names_it(served: Path) -> None:
    (served / "config.json").write_text('{"model_type": "chinese_clip"}')
    with pytest.raises(DownloadError, match="model_type: 'chinese_clip', which no installed plugin reads"):
        zoo.build("hf-hub:acme/served")
