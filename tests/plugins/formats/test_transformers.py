"""Checkpoints of other libraries: each is made by that library, read here, and gives the features that it gives there."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import zoo
from support.checkpoints.foreign import WORDS, assert_close, equal, tensors_of
from support.checkpoints.transformers_folders import (
    IMAGES,
    TEXT,
    VISION,
    captions,
    images,
    pooled,
    randomized,
    saved,
    transformers_model,
)
from support.tokenizers.tiny_tokenizers import MAKERS
from zoo.checkpoints.open import checkpoint_formats, open_checkpoint, read_foreign_config
from zoo.transfer.convert import export
from zoo_core.checkpoints import CheckpointFormat, TensorInfo
from zoo_core.errors import CheckpointError, ConfigError, ZooError

Json = dict[str, Any]


def layouts() -> list[CheckpointFormat]:
    return [layout for _, layout in checkpoint_formats()]


def stated(folder: Path) -> Mapping[str, Any]:
    found = read_foreign_config(folder)
    assert found is not None
    return found


# transformers


def with_config(folder: Path, change: Callable[[Json], None]) -> Path:
    path = folder / "config.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    return folder


@pytest.fixture(params=["clip", "siglip"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize(
    ("text", "vision"),
    [
        ({}, {}),
        ({"hidden_act": "gelu"}, {"hidden_act": "gelu"}),
        ({"hidden_act": "gelu_pytorch_tanh"}, {"hidden_act": "quick_gelu"}),
        ({"hidden_act": "quick_gelu"}, {"hidden_act": "gelu_pytorch_tanh", "num_attention_heads": 4}),
        ({"eos_token_id": 5}, {"patch_size": 8}),
        ({"eos_token_id": 2, "layer_norm_eps": 1e-3}, {}),
    ],
    ids=["defaults", "gelu", "tanh and quick", "quick and tanh", "end is 5", "end is 2"],
)
def test_a_model_of_transformers_gives_its_features_here_and_comes_back(
    kind: str, text: Json, vision: Json, tmp_path: Path
) -> None:
    import transformers

    theirs = transformers_model(kind, text, vision)
    folder = saved(theirs, tmp_path / "theirs", kind)
    ours = zoo.build(folder)
    end = {2: WORDS - 1}.get(text.get("eos_token_id", 2), text.get("eos_token_id", 0))
    ids, pixels = captions(end=end), images()
    with torch.no_grad():
        assert_close(ours.encode_image(pixels, normalize=False), pooled(theirs.get_image_features(pixels)))
        assert_close(ours.encode_text(ids, normalize=False), pooled(theirs.get_text_features(ids)))
        logits = theirs(input_ids=ids, pixel_values=pixels).logits_per_image
        assert_close(ours.get_logits(pixels, ids)[0], logits)
    written = export(ours, tmp_path / "ours", to="transformers")
    assert equal(load_file(written / "model.safetensors"), load_file(folder / "model.safetensors"))
    again = type(theirs).from_pretrained(written).eval()
    assert isinstance(theirs, transformers.PreTrainedModel)
    with torch.no_grad():
        assert torch.equal(again(input_ids=ids, pixel_values=pixels).logits_per_image, logits)


@pytest.mark.parametrize("side", ["image", "text"])
def test_a_tower_alone_gives_its_features_here(kind: str, side: str, tmp_path: Path) -> None:
    import transformers

    whole = transformers_model(kind)
    vision, text = whole.config.vision_config, whole.config.text_config
    if kind == "clip":
        vision.projection_dim = text.projection_dim = 16
    classes = {
        ("clip", "image"): transformers.CLIPVisionModelWithProjection,
        ("clip", "text"): transformers.CLIPTextModelWithProjection,
        ("siglip", "image"): transformers.SiglipVisionModel,
        ("siglip", "text"): transformers.SiglipTextModel,
    }
    theirs = randomized(classes[kind, side](vision if side == "image" else text))
    folder = saved(theirs, tmp_path / "theirs", kind)
    ours = zoo.build(folder, towers=(side,))
    given = images() if side == "image" else captions()
    with torch.no_grad():
        output = theirs(given)
        found = (
            ours.encode_image(given, normalize=False) if side == "image" else ours.encode_text(given, normalize=False)
        )
        expected = output.image_embeds if (kind, side) == ("clip", "image") else None
        expected = output.text_embeds if (kind, side) == ("clip", "text") else expected
        assert_close(found, output.pooler_output if expected is None else expected)


def test_towers_that_were_saved_with_a_prefix_load_like_those_without(tmp_path: Path) -> None:
    import transformers

    whole = transformers_model("siglip")
    theirs = randomized(transformers.SiglipVisionModel(whole.config.vision_config))
    folder = saved(theirs, tmp_path / "theirs", "siglip")
    plain = tensors_of(open_checkpoint(folder))
    tensors = load_file(folder / "model.safetensors")
    save_file({f"vision_model.{key}": one for key, one in tensors.items()}, folder / "model.safetensors")
    assert equal(tensors_of(open_checkpoint(folder)), plain)


def test_shards_and_other_dtypes_come_through(kind: str, tmp_path: Path) -> None:
    theirs = transformers_model(kind).to(torch.bfloat16)
    folder = saved(theirs, tmp_path / "theirs", kind, max_shard_size="20KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    tensors = tensors_of(open_checkpoint(folder))
    assert {one.dtype for one in tensors.values()} == {torch.bfloat16}


def test_counted_positions_of_old_versions_are_left_out(kind: str, tmp_path: Path) -> None:
    folder = saved(transformers_model(kind), tmp_path / "theirs", kind)
    tensors = load_file(folder / "model.safetensors")
    for tower in ("text_model", "vision_model"):
        tensors[f"{tower}.embeddings.position_ids"] = torch.arange(4)[None]
    before = tensors_of(open_checkpoint(folder))
    save_file(tensors, folder / "model.safetensors")
    assert equal(tensors_of(open_checkpoint(folder)), before)


def test_a_section_of_old_files_under_two_names_is_read_as_transformers_reads_it(tmp_path: Path) -> None:
    import transformers

    folder = saved(transformers_model("clip"), tmp_path / "theirs", "clip")
    given = {"hidden_act": "gelu", **TEXT}

    def older(config: Json) -> None:
        config["text_config_dict"] = given
        config["vision_config_dict"] = None
        config["text_config"]["hidden_act"] = "quick_gelu"

    with_config(folder, older)
    assert transformers.CLIPConfig.from_pretrained(folder).text_config.hidden_act == "gelu"
    assert zoo.config(stated(folder)).text.activation == "gelu"


def test_a_missing_activation_is_the_one_of_transformers(kind: str, tmp_path: Path) -> None:
    folder = saved(transformers_model(kind), tmp_path / "theirs", kind)

    def silent(config: Json) -> None:
        for section in ("text_config", "vision_config"):
            del config[section]["hidden_act"]

    config = zoo.config(stated(with_config(folder, silent)))
    expected = {"clip": "quick_gelu", "siglip": "gelu_tanh"}[kind]
    assert config.text.activation == expected
    found = getattr(config.vision, "activation", None) or config.vision.kwargs["act_layer"]
    assert found == expected


@pytest.mark.parametrize(
    ("kind", "section", "key", "value", "message"),
    [
        (
            "clip",
            "text_config",
            "hidden_act",
            "relu",
            "'relu' is not known, did you mean 'gelu'?",
        ),
        ("clip", "vision_config", "hidden_act", "gelu_new", "'gelu_new' is not known"),
        ("siglip", "vision_config", "hidden_act", "silu", "'silu' is not known"),
        ("clip", "text_config", "attention_dropout", 0.1, "cannot be expressed; set it to 0.0, found 0.1"),
        ("clip", "text_config", "eos_token_id", 49407, "49407 is not in the vocabulary, whose ids run from 0 to 599"),
        ("clip", "text_config", "hiden_size", 24, "unknown key, did you mean 'hidden_size'?"),
        ("clip", "vision_config", "num_channels", 4, "4 is not known (allowed: 3)"),
        ("clip", "vision_config", "num_attention_heads", 3, "3 does not divide hidden_size 32"),
        ("siglip", "vision_config", "vision_use_head", False, "without its pooling head the tower gives tokens"),
        ("siglip", "vision_config", "layer_norm_eps", 1e-5, "it is 1e-06 in timm's backbones"),
        ("siglip", "text_config", "projection_size", 40, "is not vision_config.hidden_size 32"),
        ("siglip", None, "rope_theta", 1.0, "unknown key"),
    ],
)
def test_what_a_config_states_and_we_cannot_build_is_refused_at_its_line(
    kind: str, section: str | None, key: str, value: Any, message: str, tmp_path: Path
) -> None:
    folder = saved(transformers_model(kind), tmp_path / "theirs", kind)

    def wrong(config: Json) -> None:
        (config[section] if section else config)[key] = value

    with pytest.raises(ConfigError) as error:
        stated(with_config(folder, wrong))
    assert message in str(error.value)
    assert f"{folder / 'config.json'}:" in str(error.value)
    assert key in str(error.value)


def test_a_config_of_another_model_is_left_to_others(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    assert [one.architecture(tmp_path) for one in layouts()] == [None] * len(layouts())


PUBLISHED: dict[str, Json] = {
    "vit-b32-quickgelu": {
        "model_type": "clip",
        "projection_dim": 512,
        "text_config": {"model_type": "clip_text_model", "eos_token_id": 2, "num_beams": 1, "torch_dtype": None},
        "text_config_dict": None,
        "vision_config": {"model_type": "clip_vision_model"},
    },
    "vit-h14": {
        "model_type": "clip",
        "projection_dim": 1024,
        "text_config": {"hidden_act": "gelu", "hidden_size": 1024, "intermediate_size": 4096}
        | {"num_attention_heads": 16, "num_hidden_layers": 24, "projection_dim": 512},
        "vision_config": {"hidden_act": "gelu", "hidden_size": 1280, "intermediate_size": 5120, "patch_size": 14}
        | {"num_attention_heads": 16, "num_hidden_layers": 32, "projection_dim": 512},
    },
    "vit-so400m14-siglip-384": {
        "model_type": "siglip",
        "text_config": {"hidden_size": 1152, "intermediate_size": 4304, "num_attention_heads": 16}
        | {"num_hidden_layers": 27, "max_position_embeddings": 64, "hidden_act": "gelu"},
        "vision_config": {"hidden_size": 1152, "intermediate_size": 4304, "num_attention_heads": 16}
        | {"num_hidden_layers": 27, "image_size": 384, "patch_size": 14, "hidden_act": "gelu"},
    },
}
"""Configs as transformers writes them, but for SigLIP's activation, in which open_clip's architectures differ."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_configs_of_published_models_are_our_architectures(name: str, tmp_path: Path) -> None:
    kind = PUBLISHED[name]["model_type"]
    expected: Any = zoo.config(name, ["preprocess.alpha=white"])  # as every folder of transformers is read
    side = expected.vision.image_size[0]
    images = dict(IMAGES[kind])
    images["size"] = {"shortest_edge": side} if kind == "clip" else {"height": side, "width": side}
    images["image_mean"], images["image_std"] = list(expected.preprocess.mean), list(expected.preprocess.std)
    if kind == "clip":
        images["crop_size"] = side
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED[name]))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(images))
    found: Any = zoo.config(stated(tmp_path))
    assert (found.vision, found.text, found.preprocess) == (expected.vision, expected.text, expected.preprocess)
    assert (found.embed_dim, found.init_logit_bias) == (expected.embed_dim, expected.init_logit_bias)


VALUES = st.none() | st.booleans() | st.integers(-3, 40) | st.floats() | st.text(max_size=5) | st.just([16, 16])


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_whatever_stands_in_a_config_is_read_or_refused_with_an_error_of_ours(tmp_path: Path, data: Any) -> None:
    kind = data.draw(st.sampled_from(["clip", "siglip"]))
    sections: Json = {"text_config": dict(TEXT), "vision_config": dict(VISION)}
    config: Json = {"model_type": kind, "projection_dim": 16, **sections}
    config |= data.draw(st.dictionaries(st.sampled_from([*config, "text_config_dict", "other"]), VALUES, max_size=1))
    for name in sections:
        if isinstance(config[name], dict):
            config[name] |= data.draw(
                st.dictionaries(st.sampled_from([*config[name], "hidden_act"]), VALUES, max_size=2)
            )
    images = IMAGES[kind] | data.draw(st.dictionaries(st.sampled_from([*IMAGES[kind], "resample"]), VALUES, max_size=2))
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(images))
    try:
        for layout in layouts():
            found = layout.architecture(tmp_path)
            if found is not None:
                zoo.config(found)
    except ZooError:
        pass


@given(
    st.dictionaries(
        st.sampled_from(
            [
                "vision_model.embeddings.class_embedding",
                "vision_model.pre_layrnorm.weight",
                "vision_model.head.probe",
                "vision_model.embeddings.position_embedding.weight",
                "visual_projection.weight",
                "text_projection.weight",
                "text_model.embeddings.token_embedding.weight",
                "vision_model.head.attention.in_proj_weight",
                "logit_scale",
                *(f"text_model.encoder.layers.0.self_attn.{one}_proj.weight" for one in "qkv"),
                "params/img/embedding/kernel",
                "params/txt/Embed_0/embedding",
                "params/b",
                "params/img/Transformer/encoderblock/LayerNorm_0/scale",
                *(
                    f"params/img/Transformer/encoderblock/MultiHeadDotProductAttention_0/{one}/kernel"
                    for one in ("query", "key", "value", "out")
                ),
                "input_resolution",
                "context_length",
                "vocab_size",
                "image_encoder.model.patch_embed.0.rbr_conv.0.conv.weight",
                "image_encoder.model.network.0.0.layer_scale",
                "image_encoder.model.network.1.proj.0.weight",
                "image_encoder.model.head.proj",
                "image_encoder.model.patch_emb.0.block.conv.weight",
                "text_encoder.positional_embedding.pos_embed.pos_embed",
            ]
        ),
        st.lists(st.integers(0, 6), max_size=4).map(tuple),
    )
)
def test_whatever_names_and_shapes_a_file_has_only_errors_of_ours_come_of_it(
    shapes: dict[str, tuple[int, ...]],
) -> None:
    entries = {key: TensorInfo("float32", shape) for key, shape in shapes.items()}
    for layout in layouts():
        if layout.recognises(entries):
            try:
                for one in layout.plan(entries):
                    made = one.infer([entries[key] for key in one.sources])
                    tensors = one.apply([torch.zeros(entries[key].shape) for key in one.sources])
                    assert [info.shape for info in made] == [tuple(tensor.shape) for tensor in tensors]
            except ZooError:
                pass


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("text.activation=gelu", "text.activation is 'gelu', the weights are for 'quick_gelu'"),
        ("vision.norm_eps=1e-6", "vision.norm_eps is 1e-06, the weights are for 1e-05"),
        ("preprocess.interpolation=bilinear", "preprocess.interpolation is 'bilinear', the weights are for 'bicubic'"),
        ("vision.head_width=8", "vision.head_width is 8, the weights are for 16"),
    ],
)
def test_a_named_architecture_is_held_to_what_the_folder_of_its_weights_states(
    change: str, message: str, tmp_path: Path
) -> None:
    folder = saved(transformers_model("clip"), tmp_path / "theirs", "clip")
    right, wrong = zoo.config(stated(folder)), zoo.config(stated(folder), [change])
    assert equal(zoo.build(right, pretrained=folder).state_dict(), zoo.build(folder).state_dict())
    for model in (lambda: zoo.build(wrong, pretrained=folder), lambda: zoo.load_weights(zoo.build(wrong), folder)):
        with pytest.raises(CheckpointError, match=re.escape(message)):
            model()
    zoo.build(right, pretrained=folder, overrides=[change])


def test_a_model_of_a_folder_is_saved_with_all_of_it_and_no_word_about_where_it_was(kind: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    source = MAKERS["wordpiece"](tmp_path / "theirs")
    vocabulary = AutoTokenizer.from_pretrained(source).get_vocab()
    ids = {"vocab_size": len(vocabulary), "eos_token_id": vocabulary["[SEP]"], "bos_token_id": vocabulary["[CLS]"]}
    model = zoo.build(saved(transformers_model(kind, ids), source, kind))
    assert model.tokenizer is not None
    expected = model.tokenizer(["A photo of a cat!", ""])
    folder = zoo.save(model, tmp_path / "saved")
    shutil.rmtree(source)
    assert not [path for path in folder.rglob("*.*") if str(source).encode() in path.read_bytes()]
    loaded = zoo.load(folder, verify=True, probe=True)
    assert equal(loaded.state_dict(), model.state_dict())
    assert loaded.tokenizer is not None
    assert torch.equal(loaded.tokenizer(["A photo of a cat!", ""]), expected)
    moved = folder.rename(tmp_path / "moved")
    assert all(one.ok for one in zoo.verify(moved))


# its preprocessing


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, {"resize_mode": "shortest", "interpolation": "bicubic", "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}),
        ({"size": 32, "crop_size": 32}, {"resize_mode": "shortest"}),
        ({"resample": 2}, {"interpolation": "bilinear"}),
        ({"size": {"height": 32, "width": 32}, "do_center_crop": False}, {"resize_mode": "squash"}),
        ({"do_normalize": False}, {"mean": (0, 0, 0), "std": (1, 1, 1)}),
    ],
    ids=["as it is", "numbers", "bilinear", "squash", "no normalisation"],
)
def test_preprocessing_is_what_the_folder_states(change: Json, expected: Json, tmp_path: Path) -> None:
    folder = saved(transformers_model("clip"), tmp_path / "theirs", "clip")
    (folder / "preprocessor_config.json").write_text(json.dumps(IMAGES["clip"] | change))
    found: Any = zoo.config(stated(folder)).preprocess
    assert {key: getattr(found, key) for key in expected} == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": {"shortest_edge": 40}}, "size {'shortest_edge': 40} with crop_size"),
        ({"do_center_crop": False}, "size {'shortest_edge': 32} without a crop cannot be expressed"),
        ({"resample": 1}, "allowed: 2 (bilinear), 3 (bicubic), found 1"),
        ({"do_resize": False}, "do_resize"),
        ({"rescale_factor": 1.0}, "pixels are divided by 255"),
        ({"do_pad": True, "pad_size": {"height": 40, "width": 40}}, "pad_size: cannot be expressed"),
        ({"image_mean": None}, "image_mean and image_std have to be there"),
        ({"image_mean": [0.5]}, "image_mean"),
        ({"min_pixels": 7}, "min_pixels: unknown key"),
    ],
)
def test_preprocessing_that_we_have_not_is_refused(change: Json, message: str, tmp_path: Path) -> None:
    folder = saved(transformers_model("clip"), tmp_path / "theirs", "clip")
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(IMAGES["clip"] | change))
    with pytest.raises(ConfigError) as error:
        zoo.config(stated(folder))
    assert message in str(error.value)
    assert str(path) in str(error.value)


def test_a_folder_that_says_nothing_of_its_preprocessing_is_refused(kind: str, tmp_path: Path) -> None:
    folder = saved(transformers_model(kind), tmp_path / "theirs", kind)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ConfigError, match=r"holds no preprocessor_config.json, so how its images were prepared is unk"):
        stated(folder)


def test_preprocessing_of_newer_folders_is_found_in_their_processor(tmp_path: Path) -> None:
    folder = saved(transformers_model("clip"), tmp_path / "theirs", "clip")
    before = zoo.config(stated(folder)).preprocess
    (folder / "preprocessor_config.json").rename(folder / "processor_config.json")
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": IMAGES["clip"]}))
    assert zoo.config(stated(folder)).preprocess == before


def test_pictures_become_the_tensors_that_transformers_makes_of_them(kind: str, tmp_path: Path) -> None:
    import transformers
    from PIL import Image

    folder = saved(transformers_model(kind), tmp_path / "theirs", kind)
    pixels = torch.randint(0, 256, (50, 70, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    picture = Image.fromarray(pixels.numpy())
    names = {"clip": "CLIPImageProcessorPil", "siglip": "SiglipImageProcessorPil"}
    theirs = getattr(transformers, names[kind]).from_pretrained(folder)(picture, return_tensors="pt").pixel_values[0]
    exact = zoo.preprocess(zoo.config(stated(folder), ["preprocess.engine=pil"]))
    assert_close(exact(picture), theirs)


# timm's backbones


def test_the_table_of_backbones_is_timms() -> None:
    import timm
    from timm.layers.mlp import Mlp

    from zoo_formats.transformers.siglip import BACKBONES

    found = [name for name in timm.list_models("vit_*_siglip_*") if "gap" not in name]
    assert sorted(BACKBONES) == sorted(found)
    for name, one in BACKBONES.items():
        with torch.device("meta"):
            trunk: Any = timm.create_model(name, num_classes=0)
        block: Any = trunk.blocks[0]
        assert isinstance(block.mlp, Mlp)
        assert trunk.default_cfg["input_size"][1:] == (one.image_size, one.image_size)
        assert trunk.patch_embed.patch_size == (one.patch_size, one.patch_size)
        assert (trunk.embed_dim, len(trunk.blocks), block.attn.num_heads) == (one.width, one.layers, one.heads)
        assert block.mlp.fc1.out_features == one.hidden
        assert ("tanh" in repr(block.mlp.act).lower()) is (one.activation == "gelu_tanh")
        assert block.norm1.eps == 1e-6
