"""Messages that quote a file: one line of a bounded length, without characters that command a terminal."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import zoo
from support.models.tiny_clip import ARCHITECTURE, tiny
from zoo_core.errors import LONGEST_LINE, CheckpointError, ConfigError, InputError, Problem, ZooError

NAMES = {
    "a command to a terminal": ("\x1b[2J", "\\x1b[2J"),
    "NUL": ("a\0b", "a\\x00b"),
    "a lone surrogate": ("\ud800", "\\ud800"),
    "text that turns round": ("a\u202eb", "a\\u202eb"),
    "lines": ("a\nb", "a b"),
    "a name in another script": ("猫\u3000é", "猫\u3000é"),
    "a megabyte": ("k" * 1_000_000, "k" * 117 + "..."),
}
"""A name of a tensor or key, and how it is told."""


@pytest.mark.parametrize("case", NAMES)
def test_a_name_of_a_tensor_is_told_in_one_line_that_can_be_printed(case: str, tmp_path: Path) -> None:
    name, told = NAMES[case]
    model = zoo.build(ARCHITECTURE)
    torch.save({**model.state_dict(), name: torch.ones(1)}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError) as caught:
        zoo.load_weights(model, tmp_path / "x.pt")
    assert f": {told}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    str(caught.value).encode()


@pytest.mark.parametrize("case", [case for case in NAMES if "surrogate" not in case])
def test_a_key_of_a_config_is_told_in_one_line_that_can_be_printed(case: str) -> None:
    name, told = NAMES[case]
    with pytest.raises(ConfigError) as caught:
        zoo.config({**ARCHITECTURE, name: 1})
    assert str(caught.value).startswith(f"mapping: {told}: unknown key")
    assert len(str(caught.value).splitlines()) == 1


def test_a_header_with_names_of_any_length_is_refused_in_one_line(tmp_path: Path) -> None:
    save_file({"x" * 100_000: torch.ones(4)}, tmp_path / "x.safetensors")
    content = (tmp_path / "x.safetensors").read_bytes()
    (tmp_path / "x.safetensors").write_bytes(content.replace(b'"shape":[4]', b'"shape":[5]'))
    with pytest.raises(CheckpointError, match=r"safetensors: 'xxx.* \.\.\. .*xxx' takes 16 bytes") as caught:
        zoo.load_weights(tiny(), tmp_path / "x.safetensors")
    assert len(str(caught.value)) < LONGEST_LINE + 10


def test_the_fix_at_the_end_of_a_long_message_is_told() -> None:
    assert re.fullmatch(r"x{1000} \.\.\. x+; get it again", str(InputError("x" * 9_000 + "; get it again")))


def test_every_problem_of_a_config_keeps_its_line() -> None:
    error = ConfigError([Problem("wrong", "a\nb", "x\ny.yaml", 3, 4), Problem("bad", "c")])
    assert str(error) == "x y.yaml:3:4: a b: wrong\nc: bad"


def test_an_error_without_words_has_none() -> None:
    assert str(ZooError()) == ""
