"""`zoo convert`: what is written, the library that it is written for loads, with equal features; or it is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import zoo
from support import peer
from support.checkpoints.foreign import assert_close, equal, save_tokenizer
from support.models.tiny_architectures import CLIP, SIGLIP, changed, model_of
from zoo.cli.app import main
from zoo.transfer.convert import convert, export, libraries
from zoo_core.errors import CheckpointError, InputError, SaveError, UnknownNameError

Json = dict[str, Any]


def pixels_and_ids(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return peer.images(model), peer.captions(model)


# open_clip


def loaded_by_the_peer(folder: Path) -> Any:
    """Load a folder as open_clip 3.3.0 does, which reads configs by name and weights from a file."""
    import open_clip

    data = json.loads((folder / "open_clip_config.json").read_text())
    configs = folder.parent / "model_configs"
    configs.mkdir()
    (configs / f"{folder.name}.json").write_text(json.dumps(data["model_cfg"]))
    images = {f"image_{key}": data["preprocess_cfg"][key] for key in ("mean", "std", "interpolation", "resize_mode")}
    weights = str(folder / "open_clip_model.safetensors")
    known = dict(open_clip.factory._MODEL_CONFIGS)
    try:
        open_clip.add_model_config(configs)
        model, preprocess = open_clip.create_model_from_pretrained(folder.name, pretrained=weights, **images)
    finally:  # other tests count what open_clip offers
        open_clip.factory._MODEL_CONFIG_PATHS.remove(configs)
        open_clip.factory._MODEL_CONFIGS = known
    return model.eval(), preprocess


OPEN_CLIP: dict[str, Json] = {
    "CLIP": {},
    "quick_gelu": {"vision": {"activation": "quick_gelu"}, "text": {"activation": "quick_gelu"}},
    "tanh": {"vision": {"activation": "gelu_tanh"}, "text": {"activation": "gelu_tanh", "norm_eps": 1e-3}},
    "custom": {"model": "custom-text-clip", "init_logit_bias": -10, "text": {"causal": False, "pool_type": "last"}},
    "options": {
        "vision": {"pool_type": "avg", "ln_pre": False, "ls_init_value": 0.1, "final_ln_after_pool": True},
        "text": {"proj_bias": True, "pool_type": "eos", "eos_id": 49407, "mlp_ratio": 2.5},
    },
    "pooler": {"vision": {"attentional_pool": "single", "attn_pooler_heads": 2, "attn_pooler_queries": 4}},
    "sines": {"vision": {"pos_embed": "sin_cos_2d"}},
    "rectangle": {"vision": {"image_size": [32, 64], "patch_size": [16, 8]}},
    "resnet": {
        "vision": {
            "tower": "modified-resnet",
            "layers": [1, 1, 1, 1],
            "width": 16,
            "head_width": 16,
            "image_size": 64,
            "patch_size": None,
        }
    },
    "preprocessing": {
        "preprocess": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "interpolation": "bilinear"}
        | {"resize_mode": "longest", "fill": 7}
    },
}


def without_none(config: Json) -> Json:
    return {
        key: without_none(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if value is not None
    }


@pytest.mark.parametrize("name", OPEN_CLIP)
def test_open_clip_loads_what_is_written_for_it(name: str, tmp_path: Path) -> None:
    ours = model_of(without_none(changed(OPEN_CLIP[name], CLIP)))
    folder = export(ours, tmp_path / f"zoo-{name}", to="open_clip")
    theirs, preprocess = loaded_by_the_peer(folder)
    assert type(theirs).__name__ == type(ours).__name__
    pixels, ids = pixels_and_ids(ours)
    with torch.no_grad():
        assert_close(ours.encode_image(pixels), theirs.encode_image(pixels))
        assert_close(ours.encode_text(ids), theirs.encode_text(ids))
    state = ours.state_dict()
    assert {key: torch.equal(one, state[key]) for key, one in theirs.state_dict().items()} == dict.fromkeys(state, True)
    assert str(list(ours.config.preprocess.mean)) in str(preprocess)


def test_a_timm_backbone_is_written_for_open_clip(tmp_path: Path) -> None:
    vision = {"tower": "timm", "name": "test_vit2", "image_size": 160, "pool": "avg", "proj": "linear", "drop": 0.1}
    ours = model_of({**CLIP, "model": "custom-text-clip", "vision": vision})
    theirs, _ = loaded_by_the_peer(export(ours, tmp_path / "zoo-timm", to="open_clip"))
    pixels, ids = pixels_and_ids(ours)
    with torch.no_grad():
        assert_close(ours.encode_image(pixels), theirs.encode_image(pixels))
        assert_close(ours.encode_text(ids), theirs.encode_text(ids))


def test_coca_is_written_for_open_clip(tmp_path: Path) -> None:
    coca = {
        "model": "coca",
        "vision": {"attentional_pool": "single", "attn_pooler_heads": 2, "attn_pooler_queries": 4},
        "text": {"class_token": True, "pool_type": "last", "pad_id": 0, "width": 16},
        "multimodal": {"width": 16, "heads": 2, "layers": 1},
    }
    ours = model_of(changed(coca, CLIP))
    theirs, _ = loaded_by_the_peer(export(ours, tmp_path / "zoo-coca", to="open_clip"))
    pixels, ids = pixels_and_ids(ours)
    with torch.no_grad():
        found, expected = ours(pixels, ids), theirs(pixels, ids)
    for key in ("image_features", "text_features"):
        assert_close(found[key], expected[key])


def test_every_architecture_of_open_clip_is_written_as_a_config_that_means_it(tmp_path: Path) -> None:
    from zoo.catalog.architectures import architectures
    from zoo.transfer.convert import written_formats

    (layout,) = written_formats("open_clip")
    written = 0
    for entry in architectures().entries:
        config = zoo.config(entry.name)
        if config.text.tower == "hf-text" or entry.name == "digits-tiny":
            continue
        (tmp_path / "open_clip_config.json").write_bytes(layout.files(config.data())["open_clip_config.json"])
        stated = layout.architecture(tmp_path)
        assert stated is not None
        found = zoo.config(stated).data()
        assert {**found, "description": ""} == {**config.data(), "description": ""}, entry.name
        written += 1
    assert written > 130


# transformers


ACTIVATIONS: Json = {"vision": {"activation": "gelu_tanh"}, "text": {"activation": "quick_gelu"}}


@pytest.mark.parametrize(
    ("config", "name"), [(changed(ACTIVATIONS, CLIP), "CLIPModel"), (SIGLIP, "SiglipModel")], ids=["CLIP", "SigLIP"]
)
def test_transformers_loads_what_is_written_for_it(config: Json, name: str, tmp_path: Path) -> None:
    import transformers

    ours = model_of(config)
    folder = export(ours, tmp_path / "model", to="transformers")
    theirs: Any = transformers.AutoModel.from_pretrained(folder).eval()
    assert type(theirs).__name__ == name
    pixels, ids = pixels_and_ids(ours)
    with torch.no_grad():
        output = theirs(input_ids=ids, pixel_values=pixels)
        assert_close(ours.encode_image(pixels, normalize=True), output.image_embeds)
        assert_close(ours.encode_text(ids, normalize=True), output.text_embeds)
        torch.testing.assert_close(ours.get_logits(pixels, ids)[0], output.logits_per_image, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("config", [CLIP, SIGLIP], ids=["CLIP", "SigLIP"])
def test_a_logit_scale_that_is_no_scalar_has_the_shape_of_transformers(config: Json, tmp_path: Path) -> None:
    plain, other = model_of(config), model_of({**config, "nonscalar_logit_scale": True})
    expected = weights_of(export(plain, tmp_path / "plain", to="transformers"))
    found = weights_of(export(other, tmp_path / "other", to="transformers"))
    assert {key: one.shape for key, one in found.items()} == {key: one.shape for key, one in expected.items()}
    assert torch.equal(found["logit_scale"].flatten(), other.state_dict()["logit_scale"])


def test_the_plain_clips_and_siglips_are_written_as_configs_that_mean_them(tmp_path: Path) -> None:
    from zoo.catalog.architectures import architectures
    from zoo.transfer.convert import written_formats

    written: list[str] = []
    for entry in architectures().entries:
        config = zoo.config(entry.name, ["preprocess.alpha=white"])  # as every folder of transformers is read
        for layout in written_formats("transformers"):
            try:
                files = layout.files(config.data())
            except CheckpointError:
                continue
            for name, content in files.items():
                (tmp_path / name).write_bytes(content)
            stated = layout.architecture(tmp_path)
            assert stated is not None
            found = zoo.config(stated)
            if (found.vision, found.text, found.preprocess) == (config.vision, config.text, config.preprocess):
                written.append(entry.name)
    assert {"vit-b32-quickgelu", "vit-l14-336", "vit-g14", "vit-bigg14", "vit-so400m14-siglip-384"} < set(written)
    assert {"vit-b16-siglip2-naflex", "vit-so400m16-siglip2-naflex"} < set(written)
    assert len(written) >= 58


@pytest.mark.parametrize("kind", [CLIP, SIGLIP], ids=["CLIP", "SigLIP"])
def test_transformers_prepares_pictures_as_the_model_does(kind: Json, tmp_path: Path) -> None:
    import transformers
    from PIL import Image

    ours = model_of(kind)
    folder = export(ours, tmp_path / "model", to="transformers")
    noise = torch.randint(0, 256, (50, 70, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    picture = Image.fromarray(noise.numpy())
    name = "CLIPImageProcessorPil" if kind is CLIP else "SiglipImageProcessorPil"
    theirs = getattr(transformers, name).from_pretrained(folder)(picture, return_tensors="pt").pixel_values[0]
    exact = zoo.preprocess(zoo.config(ours.config, ["preprocess.engine=pil"]))
    assert_close(exact(picture), theirs)


@pytest.mark.parametrize(
    ("base", "change", "message"),
    [
        (CLIP, {"vision": {"ls_init_value": 0.1}}, "no place for visual.transformer.resblocks.0.ls_1.gamma"),
        (CLIP, {"vision": {"pool_type": "avg"}}, "vision.pool_type is 'avg' and would be read as 'tok'"),
        (CLIP, {"vision": {"patch_dropout": 0.5}}, "vision.patch_dropout is 0.5 and would be read as 0.0"),
        (CLIP, {"vision": {"ln_pre": False}}, "vision.ln_pre is False and would be read as True"),
        (CLIP, {"vision": {"image_size": [32, 64]}}, "vision.image_size: [32, 64]"),
        (CLIP, {"text": {"causal": False, "pool_type": "last"}}, "text.causal is False and would be read as True"),
        (
            CLIP,
            {"text": {"pool_type": "eos", "eos_id": 2}, "tokenizer": SIGLIP["tokenizer"] | {"vocab_size": 49_408}},
            "text.pool_type is 'eos' and would be read as 'argmax'",
        ),
        (CLIP, {"init_logit_bias": -10}, "no place for logit_bias"),
        (CLIP, {"preprocess": {"resize_mode": "longest"}}, "preprocess.resize_mode: longest"),
        (CLIP, {"preprocess": {"exif": True}}, "preprocess.exif is True and would be read as False"),
        (CLIP, {"tokenizer": {"cleaning": "canonicalize"}}, "tokenizer.cleaning is 'canonicalize'"),
        (SIGLIP, {"vision": {"kwargs": {"reg_tokens": 4}}}, "vision.kwargs.reg_tokens (it has patch_size,"),
        (SIGLIP, {"vision": {"kwargs": {"act_layer": "relu"}}}, "vision.kwargs.act_layer: relu (it has quick_gelu,"),
        (SIGLIP, {"init_logit_bias": None}, "a model without logit_bias (init_logit_bias: null)"),
        (SIGLIP, {"vision": {"kwargs": {"act_layer": "gelu"}}, "text": {"causal": True}}, "text.causal is True"),
        (SIGLIP, {"text": {"class_token": True, "pad_id": 0}}, "no place for text.cls_emb"),
    ],
)
def test_what_transformers_has_not_is_refused_by_name_and_nothing_is_written(
    base: Json, change: Json, message: str, tmp_path: Path
) -> None:
    ours = model_of(changed(change, base))
    with pytest.raises(CheckpointError) as error:
        export(ours, tmp_path / "folder", to="transformers")
    assert message in str(error.value)
    assert str(tmp_path) not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_what_open_clip_has_not_is_refused_by_name(tmp_path: Path) -> None:
    ours = model_of(changed({"vision": {"activation": "quick_gelu"}}, CLIP))
    with pytest.raises(CheckpointError, match="text.activation is 'gelu' and would be read as 'quick_gelu'"):
        export(ours, tmp_path / "folder", to="open_clip")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("pool", ["parallel", "cascade"])
def test_a_pool_that_open_clip_builds_at_one_width_alone_is_refused_at_others(pool: str, tmp_path: Path) -> None:
    vision = {"attentional_pool": pool, "attn_pooler_heads": 2, "attn_pooler_queries": 4}
    config = changed({"vision": vision}, CLIP)
    assert config["vision"]["width"] != config["embed_dim"]
    with pytest.raises(
        CheckpointError, match=f"vision.attentional_pool '{pool}' of a width of 32 and embed_dim 16: it"
    ):
        export(model_of(config), tmp_path / "folder", to="open_clip")
    assert list(tmp_path.iterdir()) == []
    ours = model_of(changed({"embed_dim": config["vision"]["width"]}, config))
    theirs, _ = loaded_by_the_peer(export(ours, tmp_path / f"zoo-{pool}", to="open_clip"))
    pixels = torch.randn(2, 3, *ours.visual.image_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():  # the peer leaves a dimension in the feature
        assert_close(ours.encode_image(pixels), theirs.encode_image(pixels).squeeze(1))


def test_a_tokenizer_of_a_folder_is_no_name_for_open_clip(tmp_path: Path) -> None:
    tokenizer = SIGLIP["tokenizer"] | {"vocab_size": 49_408, "cleaning": "none", "special_tokens_in_text": True}
    model = model_of(changed({"text": {"pool_type": "last"}}, {**CLIP, "tokenizer": tokenizer}))
    folder = zoo.save(model, tmp_path / "model", probe=False)
    with pytest.raises(CheckpointError, match=r"found the folder './tokenizer'; say which one is the same"):
        convert(folder, tmp_path / "out", to="open_clip")
    convert(folder, tmp_path / "clip", to="open_clip", overrides=["tokenizer.type=clip-bpe"])
    same = "tokenizer.name=timm/ViT-B-16-SigLIP"
    with pytest.raises(CheckpointError, match=r"open_clip cleans every caption, found tokenizer.cleaning: none"):
        convert(folder, tmp_path / "out", to="open_clip", overrides=[same])
    cleaned = [same, "tokenizer.cleaning=canonicalize"]
    convert(folder, tmp_path / "out", to="open_clip", overrides=cleaned)
    with pytest.raises(CheckpointError, match=r"tokenizer.pad_id is 0 and would be read as 1$"):
        convert(folder, tmp_path / "other", to="open_clip", overrides=[*cleaned, "tokenizer.pad_id=0"])


CAPTIONS = ["a photo of a cat", "Two dogs, 3 cats & it's raining!", "", "naïve café - ΔΕΛΤΑ 東京", "x" * 90]


def test_transformers_finds_the_tokenizer_of_clip_with_the_ids_that_it_has_here(tmp_path: Path) -> None:
    import transformers

    ours = model_of(CLIP)
    theirs: Any = transformers.AutoTokenizer.from_pretrained(export(ours, tmp_path / "model", to="transformers"))
    length = ours.tokenizer.context_length
    found = theirs(CAPTIONS, padding="max_length", truncation=True).input_ids
    for caption, row, ids in zip(CAPTIONS, ours.tokenizer(CAPTIONS, overflow="truncate").tolist(), found, strict=True):
        end = row.index(ours.tokenizer.eot_id)
        assert len(ids) == length
        assert ids == row[: end + 1] + [ours.tokenizer.eot_id] * (length - end - 1), caption


@pytest.mark.parametrize("to", ["open_clip", "transformers"])
def test_special_ids_that_a_config_tells_are_no_obstacle(to: str, tmp_path: Path) -> None:
    told = SIGLIP["tokenizer"] | {"name": "timm/ViT-B-16-SigLIP", "pad_id": 1, "eos_id": 1}
    there = export(model_of({**SIGLIP, "tokenizer": told}), tmp_path / "model", to=to)
    assert zoo.build(there, towers=("text",)).config.tokenizer.pad_id == (1 if to == "open_clip" else None)


def test_the_files_of_a_tokenizer_go_along_to_transformers(tmp_path: Path) -> None:
    import transformers

    made = save_tokenizer(tmp_path / "tokenizer")
    ours = model_of(changed({"tokenizer": {"name": str(tmp_path / "tokenizer")}}, SIGLIP))
    there = convert(zoo.save(ours, tmp_path / "model"), tmp_path / "there", to="transformers")
    found = transformers.AutoTokenizer.from_pretrained(there)
    assert found("w5 w7 w599").input_ids == made("w5 w7 w599").input_ids == [5, 7, 599]
    (tmp_path / "tokenizer").rename(tmp_path / "gone")
    assert zoo.build(there).tokenizer("w5 w7").tolist() == ours.tokenizer("w5 w7").tolist()


# there and back


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    (file,) = folder.glob("*.safetensors")
    return load_file(file)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("library", ["open_clip", "transformers"])
@pytest.mark.parametrize("kind", [CLIP, SIGLIP], ids=["CLIP", "SigLIP"])
def test_a_model_comes_back_bit_for_bit(kind: Json, library: str, dtype: torch.dtype, tmp_path: Path) -> None:
    if kind is SIGLIP and library == "open_clip":
        kind = changed({"vision": {"name": "test_vit2", "image_size": 64, "pool": "avg", "proj": "head"}}, kind)
        kind = {**kind, "vision": {key: one for key, one in kind["vision"].items() if key != "kwargs"}}
        kind = changed({"tokenizer": {"name": "timm/ViT-B-16-SigLIP"}}, kind)
    ours = model_of(kind).to(dtype)
    first = zoo.save(ours, tmp_path / "first", probe=False)
    there = convert(first, tmp_path / "there", to=library)
    back = convert(there, tmp_path / "back")
    assert equal(weights_of(back), weights_of(first))
    again = convert(back, tmp_path / "again", to=library)
    assert equal(weights_of(again), weights_of(there))
    assert zoo.config(back / "config.yaml").vision == ours.config.vision
    assert zoo.config(back / "config.yaml").text == ours.config.text
    alpha = "white" if library == "transformers" else "drop"  # which no file of theirs says
    expected = zoo.config(ours.config, [f"preprocess.alpha={alpha}"])
    assert zoo.config(back / "config.yaml").preprocess == expected.preprocess


# sources and targets


def test_a_file_is_converted_with_the_architecture_that_is_named(tmp_path: Path) -> None:
    ours = model_of(CLIP)
    path = tmp_path / "arch.yaml"
    path.write_text(json.dumps(CLIP))
    save_file(ours.state_dict(), tmp_path / "weights.safetensors")
    for number, arguments in enumerate(
        [
            {"source": tmp_path / "weights.safetensors", "architecture": path},
            {"source": path, "pretrained": tmp_path / "weights.safetensors"},
        ]
    ):
        folder = convert(folder=tmp_path / str(number), to="open_clip", **arguments)
        assert equal(weights_of(folder), dict(ours.state_dict()))


def test_a_tag_is_converted(tmp_path: Path) -> None:
    folder = convert("digits-tiny", tmp_path / "digits", pretrained="demo")
    assert equal(dict(zoo.load(folder).state_dict()), dict(zoo.build("digits-tiny", pretrained="demo").state_dict()))


def test_options_that_a_library_has_not_can_be_set_to_those_that_it_has(tmp_path: Path) -> None:
    folder = zoo.save(model_of(changed({"vision": {"patch_dropout": 0.5}}, CLIP)), tmp_path / "model", probe=False)
    with pytest.raises(CheckpointError, match=r"vision\.patch_dropout is 0\.5"):
        convert(folder, tmp_path / "out", to="transformers")
    convert(folder, tmp_path / "out", to="transformers", overrides=["vision.patch_dropout=0"])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"source": "vit-b32"}, InputError, "'vit-b32' is an architecture without weights"),
        ({"source": "no/such/folder"}, UnknownNameError, "no/such/folder"),
        ({"source": "vit-b16"}, InputError, "'vit-b16' is an architecture without weights"),
        ({"source": "weights.pt"}, InputError, "weights.pt is a file of weights; name the architecture"),
        ({"source": "config.json"}, UnknownNameError, "architecture files end in .yaml; `zoo import` writes one"),
        ({"source": "vit-b32", "to": "timm"}, UnknownNameError, "nothing is written for 'timm'"),
        ({"source": "vit-b32", "to": "transformer"}, UnknownNameError, "did you mean 'transformers'?"),
        (
            {"source": "weights.pt", "architecture": "vit-b32", "pretrained": "openai"},
            InputError,
            "architecture='vit-b32' is that of a file of weights",
        ),
    ],
)
def test_sources_and_targets_that_cannot_be_meant_are_refused(
    arguments: Json, error: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("weights.pt").write_bytes(b"")
    Path("config.json").write_text("{}")
    Path("vit-b16").mkdir()
    with pytest.raises(error) as raised:
        convert(folder="out", **arguments)
    assert message in str(raised.value)
    assert not Path("out").exists()


def test_a_tower_alone_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="with both towers"):
        export(zoo.build(CLIP, towers=("image",)), tmp_path / "out", to="open_clip")


def test_a_folder_that_is_there_stays_unless_it_is_to_be_replaced(tmp_path: Path) -> None:
    ours = model_of(CLIP)
    target = tmp_path / "out"
    target.mkdir()
    (target / "precious").write_text("mine")
    for library in libraries():
        with pytest.raises(SaveError, match=r"is there already"):
            export(ours, target, to=library)
    assert (target / "precious").read_text() == "mine"
    export(ours, target, to="open_clip", force=True)
    assert sorted(one.name for one in target.iterdir()) == ["open_clip_config.json", "open_clip_model.safetensors"]


def test_the_libraries_are_those_that_plugins_write_for() -> None:
    assert libraries() == ["zoo", "open_clip", "transformers"]


def test_zoo_convert_writes_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = zoo.save(model_of(CLIP), tmp_path / "model", probe=False)
    out = tmp_path / "out"
    assert main(["convert", str(folder), str(out), "--to", "transformers"]) == 0
    assert capsys.readouterr().out == f"{out}: ok\n"
    assert sorted(one.name for one in out.iterdir()) == [
        *("config.json", "merges.txt", "model.safetensors", "preprocessor_config.json"),
        *("tokenizer_config.json", "vocab.json"),
    ]
    assert main(["convert", str(folder), str(out), "--to", "transformers"]) == 2
    assert "give force=True (--force)" in capsys.readouterr().err


def test_a_part_of_clips_vocabulary_is_told_where_open_clip_has_the_whole(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="open_clip has the tokenizer of CLIP with all of its 49,408 ids alone"):
        convert("digits-tiny", tmp_path / "theirs", to="open_clip", pretrained="demo")
    assert not (tmp_path / "theirs").exists()
