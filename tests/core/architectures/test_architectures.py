"""Architectures from names, files and mappings: `extends`, overrides, `${key}`, and errors with file and line."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from pathlib import Path

import open_clip
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import zoo
from support.checkpoints.development_configs import DEVELOPMENT
from support.models.tiny_configs import TINY
from zoo.catalog.architectures import architectures, loader
from zoo_core.documents.yaml_reader import BOUNDS, read_document
from zoo_core.errors import ConfigError, UnknownNameError
from zoo_core.registry import squash

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file and return its path."""

    def _write(text: str | bytes, name: str = "mine.yaml") -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return _write


def tiny(**changes: object) -> str:
    return yaml.safe_dump(copy.deepcopy(TINY) | changes, sort_keys=False)


@pytest.mark.parametrize(
    "spelling", ["vit-b16-quickgelu", "ViT-B-16-quickgelu", "ViT-B/16-quickgelu", "vit_b_16_QuickGELU"]
)
def test_every_spelling_is_one_name(spelling: str) -> None:
    assert zoo.config(spelling) == zoo.config("vit-b16-quickgelu")


def test_no_two_architectures_are_one_name() -> None:
    names = [
        name for entry in architectures().entries for name in {squash(one) for one in (entry.name, *entry.aliases)}
    ]
    assert len(names) == len(set(names))


def test_every_alias_is_a_model_of_the_peer_and_belongs_to_an_architecture() -> None:
    peers = set(open_clip.list_models())
    entries = {entry.name: entry.aliases for entry in architectures().entries}
    folder = next(entry.path.parent for entry in architectures().entries)
    aliases = yaml.safe_load((folder / "aliases.yaml").read_text())
    assert set(aliases) <= set(entries)
    assert {alias for names in entries.values() for alias in names} <= peers | DEVELOPMENT.keys()


def test_a_pattern_also_matches_the_peers_names() -> None:
    assert zoo.list_models("ViT-e-*") == ["vit-e14"]
    assert zoo.list_models("*-quickgelu") == [name for name in zoo.list_models() if name.endswith("-quickgelu")]


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="unknown architecture 'vit-b61', did you mean 'vit-b16'"):
        zoo.build("vit-b61")


def test_quickgelu_differs_from_its_base_in_the_activation_alone() -> None:
    base, quick = zoo.config("vit-b32").data(), zoo.config("vit-b32-quickgelu").data()
    for side in ("vision", "text"):
        assert (base[side].pop("activation"), quick[side].pop("activation")) == ("gelu", "quick_gelu")
    base.pop("description"), quick.pop("description")
    assert base == quick


def test_a_file_extends_an_architecture_and_another_file(write: Write) -> None:
    write("extends: vit-b16\nvision: {layers: 2}\n", "base.yaml")
    config = zoo.config(write("extends: base.yaml\ntext: {layers: 3}\n"))
    assert (config.vision.layers, config.text.layers, config.vision.width) == (2, 3, 768)


def test_a_section_that_names_another_component_starts_empty(write: Write) -> None:
    document = loader().document(write("extends: vit-b16\nvision: {tower: other, depth: 3}\n"))
    assert document.data["vision"] == {"tower": "other", "depth": 3}
    assert "width" in document.data["text"]


def test_overrides_come_last_and_are_read_as_yaml() -> None:
    config = zoo.config(
        "vit-b16", ["vision.layers=3", "vision.image_size=[224,448]", "text.mlp_ratio=2e0", "init_logit_bias=-10"]
    )
    assert (config.vision.layers, config.vision.image_size, config.text.mlp_ratio) == (3, (224, 448), 2.0)
    assert config.init_logit_bias == -10


def test_a_value_may_refer_to_another(write: Write) -> None:
    config = zoo.config(write("extends: vit-b16\nembed_dim: ${text.width}\ntext: {width: 640, heads: 10}\n"))
    assert config.embed_dim == 640


def test_a_small_number_in_scientific_notation_is_a_number(write: Write) -> None:
    assert zoo.config(write("extends: vit-b16\nvision: {ls_init_value: 1e-4}\n")).vision.ls_init_value == 1e-4


@pytest.mark.parametrize("text", ["no", "off", "y", "2026-01-02", "1_000", "0o17", "1:30"])
def test_a_scalar_that_only_older_yaml_converts_is_a_string(text: str, write: Write) -> None:
    assert zoo.config(write(f"extends: vit-b16\ndescription: {text}\n")).description == text
    assert zoo.config("vit-b16", [f"description={text}"]).description == text


def test_a_changed_file_is_read_again(write: Write) -> None:
    path = write("extends: vit-b16\nvision: {layers: 2}\n")
    assert zoo.config(path).vision.layers == 2
    assert zoo.config(write("extends: vit-b16\nvision: {layers: 11}\n")).vision.layers == 11


def test_a_mapping_may_extend_and_is_left_alone() -> None:
    mine = {"extends": "vit-b16", "vision": {"layers": 1}}
    before = copy.deepcopy(mine)
    assert zoo.config(mine).vision.layers == 1
    assert mine == before


def test_errors_stand_at_the_line_of_the_file_that_wrote_the_value(write: Write) -> None:
    base = write("extends: vit-b16\nvision:\n  layers: 0\n  depth: 7\n", "base.yaml")
    mine = write("extends: base.yaml\n\ntext:\n  heads: seven\nembed_dim: ${text.vocab}\n")
    with pytest.raises(ConfigError) as caught:
        zoo.config(mine)
    assert str(caught.value).startswith(f"{mine}:5:1: embed_dim: ${{text.vocab}} ")
    mine.write_text(mine.read_text().replace("${text.vocab}", "${text.heads}"))
    with pytest.raises(ConfigError) as caught:
        zoo.config(mine, ["tokenizer.typ=x"])
    lines = str(caught.value).splitlines()
    assert f"{base}:3:3: vision.layers: must be at least 1, found 0" in lines
    assert f"{base}:4:3: vision.depth: unknown key, did you mean 'head_width'?" in lines or any(
        line.startswith(f"{base}:4:3: vision.depth: unknown key") for line in lines
    )
    assert f"{mine}:4:3: text.heads: expected a whole number, found 'seven'" in lines
    assert f"{mine}:5:1: embed_dim: expected a whole number, found 'seven' (from ${{text.heads}})" in lines
    assert any(
        line.startswith("override 'tokenizer.typ=x': tokenizer.typ: unknown key, did you mean 'type'?")
        for line in lines
    )


BAD_FILES = {
    "empty": ("", "the file is empty"),
    "only a comment": ("# nothing\n", "the file is empty"),
    "list at the top": ("- 1\n- 2\n", "expected a mapping of keys at the top level"),
    "string at the top": ("hello\n", "expected a mapping of keys at the top level"),
    "binary": (b"\x7fELF\x00\x01\x02", "binary file"),
    "not UTF-8": (b"embed_dim: \xff\xfe\n", "is not UTF-8 text: byte 11 is 0xff"),
    "no YAML": ("a: [1, 2\nb: }\n", ":2:"),
    "tab": ("a:\n\t- 1\n", ":2:1: is not YAML"),
    "two documents": ("a: 1\n---\nb: 2\n", "is not YAML"),
    "duplicate key": ("embed_dim: 1\nmodel: clip\nembed_dim: 2\n", ":3:1: embed_dim: duplicate key (first on line 1)"),
    "duplicate key below": ("vision:\n  width: 1\n  width: 2\n", ":3:3: vision.width: duplicate key (first on line 2)"),
    "python tag": ("a: !!python/object/apply:os.system ['true']\n", "is not supported; write a plain value"),
    "own tag": ("a: !mine 3\n", "the tag '!mine' is not supported"),
    "alias": ("a: &x 1\nb: *x\n", ":2:4: aliases (*x) are not supported; write ${key} instead"),
    "billion laughs": ("a: &a [1,1]\nb: &b [*a,*a]\nc: [*b,*b]\n", "aliases (*a) are not supported"),
    "merge key": ("a: {x: 1}\nb:\n  <<: {x: 1}\n", ":3:3: b: merge keys (<<) are not supported; use 'extends'"),
    "deep": ("a: " + "[" * 20_000, "is nested deeper than 32 levels"),
    "many values": ("a: [" + "1," * 10_001 + "]", "has more than 10,000 values"),
    "key that is a number": ("1: x\n", ":1:1: keys are strings; quote '1'"),
    "key that is a truth value": ("true: x\n", "keys are strings; quote 'true'"),
    "endless number": ("a: " + "9" * 5000, "is not YAML: "),
    "yes for true": ("extends: vit-b16\nnonscalar_logit_scale: yes\n", ":2:1: nonscalar_logit_scale: expected true or false, found 'yes'"),
    "number with a leading zero": ("extends: vit-b16\nembed_dim: 0512\n", ":2:1: embed_dim: expected a whole number, found '0512'"),
    "time for a number": ("extends: vit-b16\nembed_dim: 12:30:00\n", ":2:1: embed_dim: expected a whole number, found '12:30:00'"),
    "no model": ("embed_dim: 3\n", ":1:1: model: required key is missing; allowed: "),
    "unknown model": ("model: clipp\n", ":1:1: model: unknown model 'clipp', did you mean 'clip'?"),
    "missing value": ("extends: vit-b16\nembed_dim: ???\n", ":2:1: embed_dim: a value is missing ('???')"),
    "unknown base": ("extends: vit-b61\n", ":1:1: extends: unknown architecture 'vit-b61', did you mean 'vit-b16'"),
    "base that is no name": ("extends: [a, b]\n", ":1:1: extends: expected the name of an architecture or a file"),
    "base that is missing": ("extends: gone.yaml\n", "gone.yaml: cannot be read: No such file or directory"),
    "itself": ("extends: mine.yaml\n", ":1:1: extends: the chain mine.yaml -> mine.yaml goes round in a circle"),
    "resolver": ("extends: vit-b16\ndescription: ${oc.env:HOME}\n", ":2:1: description: only a whole value '${key}' may refer to another"),
    "string bomb": ("extends: vit-b16\ndescription: '${model}${model}'\n", "only a whole value '${key}' may refer to another"),
    "circular value": ("extends: vit-b16\nembed_dim: ${text.width}\ntext: {width: '${embed_dim}'}\n", "embed_dim: ${text.width} "),
    "reference to a section": ("extends: vit-b16\nembed_dim: ${text}\n", ":2:1: embed_dim: ${text} names a section"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_refused_with_its_place(case: str, write: Write) -> None:
    text, message = BAD_FILES[case]
    path = write(text)
    with pytest.raises(ConfigError) as caught:
        zoo.config(path)
    assert message in str(caught.value)
    assert str(path.parent) in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_a_circle_of_files_is_told_as_a_chain(write: Write) -> None:
    write("extends: c.yaml\n", "b.yaml")
    write("extends: mine.yaml\n", "c.yaml")
    with pytest.raises(
        ConfigError, match="the chain mine.yaml -> b.yaml -> c.yaml -> mine.yaml goes round in a circle"
    ):
        zoo.config(write("extends: b.yaml\n"))


def test_a_chain_has_an_end(write: Write) -> None:
    for number in range(30):
        write(f"extends: f{number + 1}.yaml\n", f"f{number}.yaml")
    with pytest.raises(ConfigError, match="is too long"):
        zoo.config(write("extends: f0.yaml\n"))


def test_what_is_no_file_is_refused(tmp_path: Path, write: Write) -> None:
    fifo = tmp_path / "pipe.yaml"
    os.mkfifo(fifo)
    loop = tmp_path / "loop.yaml"
    loop.symlink_to(loop)
    (tmp_path / "folder.yaml").mkdir()
    for path, message in (
        (fifo, "is not a regular file"),
        (tmp_path / "folder.yaml", "is not a regular file"),
        (loop, "cannot be read"),
        (tmp_path / "none.yaml", "cannot be read: No such file or directory"),
        (write("#" * (BOUNDS.bytes + 1), "big.yaml"), "bytes; at most 262,144 are read"),
    ):
        with pytest.raises(ConfigError, match=message):
            zoo.config(path)


@pytest.mark.parametrize("override", ["vision.layers", "=3", "vision..layers=3", "vision.layers 3", "a[0]=3", ""])
def test_a_malformed_override_is_refused(override: str) -> None:
    with pytest.raises(ConfigError, match="expected key.path=value"):
        zoo.config("vit-b16", [override])


def test_overrides_are_a_sequence() -> None:
    with pytest.raises(ConfigError, match="write overrides="):
        zoo.config("vit-b16", "vision.layers=3")


def test_the_size_guard_can_be_lifted_on_purpose() -> None:
    with pytest.raises(ConfigError, match="more than max_parameters"):
        zoo.config("vit-b16", ["max_parameters=1000"])
    assert zoo.config("vit-b16", ["max_parameters=1000000000"]).max_parameters == 10**9


@settings(max_examples=200)
@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_but_a_config_error(content: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "any.yaml")
        path.write_bytes(content)
        try:
            read_document(path)
        except ConfigError as error:
            assert str(path) in str(error)


@settings(max_examples=200)
@given(st.text(alphabet="ab:{}[]-&*!|>'\"\n #%?@,$.~1", max_size=80))
def test_no_text_that_looks_like_yaml_raises_anything_but_a_config_error(text: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "any.yaml")
        path.write_text(text)
        try:
            zoo.config(path)
        except ConfigError as error:
            assert str(path) in str(error)
