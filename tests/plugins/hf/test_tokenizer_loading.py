"""Where the files of a tokenizer of transformers come from, and which tokenizers and configs are refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import tokenizers
from tokenizers import models

import zoo
from support.hf_hub_server import commit_of, serve
from support.models.tiny_configs import TINY
from support.tokenizers.tiny_tokenizers import LENGTH, ours, saved
from zoo_core.errors import ConfigError, DownloadError, InputError
from zoo_hf.config import HfTokenizerConfig
from zoo_hf.tokenizer import HfTokenizer

WRONG = {
    "size": ("wordpiece", {"vocab_size": 7}, r"^tokenizer\.vocab_size: tokenizer '.*' has 1\d\d ids, not 7; set vocab_size: 1\d\d$"),
    "no language": ("wordpiece", {"language": "eng_Latn"}, r"^tokenizer\.language: .* puts no language into its rows"),
    "unknown language": ("nllb", {"language": "xyz_Latn"}, r"^tokenizer\.language: .* does not know the language 'xyz_Latn'"),
    "clips": ("unigram", {"mode": "clips"}, r"^tokenizer\.mode: .* has no bos_token, cls_token, which mode 'clips' needs"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_tokenizer_that_does_not_fit_its_config_is_refused(case: str, folders: dict[str, Path]) -> None:
    kind, options, message = WRONG[case]
    size = ours(folders[kind]).vocab_size
    config = HfTokenizerConfig(**{"name": str(folders[kind]), "vocab_size": size, **options})
    with pytest.raises(ConfigError, match=message):
        HfTokenizer(config, context_length=LENGTH)("a cat")


BESIDE: list[tuple[Any, str]] = [
    ({}, "text.pool_type: 'argmax' reads the feature at the largest id, but of tokenizer 'hf' that is"),
    ({"pool_type": "eos", "eos_id": 7}, "text.eos_id: 7 is not the end of text of tokenizer 'hf', which is 3"),
    (
        {"pool_type": "last", "causal": False, "pad_mask": True, "pad_id": 1},
        "text.pad_id: 1 is not the padding of tokenizer 'hf', which is 0",
    ),
    (
        {
            "tower": "hf-text",
            "config": {"model_type": "roberta", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
        },
        "tokenizer: the text tower takes id 1 for padding, but tokenizer 'hf' pads with 0",
    ),
]
"""The text tower, and why it does not go with a tokenizer that pads with 0 and ends captions with 3."""


@pytest.mark.parametrize(("text", "message"), BESIDE, ids=[message for _, message in BESIDE])
def test_a_text_tower_is_held_to_the_ids_of_a_tokenizer_once_it_is_loaded(
    text: dict[str, Any], message: str, folders: dict[str, Path]
) -> None:
    tower = {"tower": "clip-transformer", "width": 16, "heads": 2, "layers": 1, "vocab_size": 200, "context_length": 9}
    if text.get("tower") == "hf-text":
        tower = {"vocab_size": 200, "context_length": 9}
    name, size = str(folders["wordpiece"]), ours(folders["wordpiece"]).vocab_size
    model = zoo.build(
        TINY | {"text": tower | text, "tokenizer": {"type": "hf", "name": name, "vocab_size": size}}, towers=("text",)
    )
    with pytest.raises(ConfigError) as caught:
        model.encode_text("a cat")
    assert message in str(caught.value)


def test_a_tokenizer_without_padding_is_refused(tmp_path: Path) -> None:
    made = tokenizers.Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="b"))
    config = HfTokenizerConfig(name=str(saved(tmp_path, made)), vocab_size=2)
    with pytest.raises(ConfigError, match="has no padding token"):
        HfTokenizer(config, context_length=LENGTH)("a")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"^tokenizer\.name: '.*': it holds none of tokenizer\.json, "),
        ({"tokenizer.json": "{"}, r"^tokenizer\.name: tokenizer '.*' cannot be read as a tokenizer: "),
    ],
)
def test_a_folder_without_a_tokenizer_is_refused(files: dict[str, str], message: str, tmp_path: Path) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=message):
        HfTokenizer(HfTokenizerConfig(name=str(tmp_path), vocab_size=9), context_length=LENGTH)("a")


@pytest.mark.parametrize("ids", [[0, 10_000], [-1], [1.5], ["a"]])
def test_ids_of_another_vocabulary_are_not_decoded(ids: list[Any], folders: dict[str, Path]) -> None:
    with pytest.raises(InputError, match=rf"ids\[{len(ids) - 1}\]: expected an id from 0 to "):
        ours(folders["wordpiece"]).decode(ids)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocab_size": 9}, "name: required key is missing"),
        ({"name": "", "vocab_size": 9}, "name: "),
        ({"name": "a/b"}, "vocab_size: required key is missing"),
        ({"name": "./here", "vocab_size": 9, "revision": "main"}, "revision: only a repository of the Hub has revisions"),
        ({"name": "a/b", "vocab_size": 9, "cleaning": "upper"}, "cleaning: 'upper' is not known"),
        ({"name": "a/b", "vocab_size": 9, "mode": "clip"}, "mode: 'clip' is not known"),
    ],
)  # fmt: skip
def test_a_wrong_config_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        HfTokenizerConfig(**options)


# -- the Hub ---------------------------------------------------------------------------------------

ASK = """
import json, sys
from zoo_core.errors import DownloadError
from zoo_hf.config import HfTokenizerConfig
from zoo_hf.tokenizer import HfTokenizer
answers = []
for options in json.loads(sys.argv[1]):
    try:
        answers.append(HfTokenizer(HfTokenizerConfig(**options), context_length=9).encode("a photo of a cat"))
    except DownloadError as error:
        answers.append(str(error))
print(json.dumps(answers))
"""


def ask(home: Path, endpoint: str, *options: dict[str, Any]) -> list[Any]:
    """Return what tokenizers answer in a process of their own that knows this Hub alone."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment |= {
        "HF_HOME": str(home),
        "ZOO_HOME": str(home / "zoo"),
        "HF_ENDPOINT": endpoint,
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run(
        [sys.executable, "-c", ASK, json.dumps(options)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def encoded(options: dict[str, Any]) -> list[int]:
    return HfTokenizer(HfTokenizerConfig(**options), context_length=9).encode("a photo of a cat")


def test_the_hub_is_asked_for_a_revision_and_offline_the_cache_is(
    tmp_path: Path, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (ours(folders[kind]) for kind in ("wordpiece", "byte-bpe"))
    main = {"name": "acme/tiny", "vocab_size": first.vocab_size}
    v2 = {"name": "acme/tiny", "vocab_size": second.vocab_size, "revision": "v2"}
    commit = v2 | {"revision": commit_of("acme/tiny", folders["byte-bpe"])}
    expected = [one.encode("a photo of a cat") for one in (first, second, second)]
    revisions = {"main": folders["wordpiece"], "v2": folders["byte-bpe"]}
    with serve({"acme/tiny": revisions}) as endpoint:
        assert ask(tmp_path, endpoint, main, v2, commit, v2 | {"revision": "v3"}, main | {"name": "acme/other"}) == [
            *expected,
            "tokenizer.name: acme/tiny at revision 'v3': the repository has no such revision",
            "tokenizer.name: acme/other: the Hub shows no such repository; if it is gated or private, log in with "
            "`hf auth login`, or name a folder that holds it, such as ./other",
        ]
    assert huggingface_hub.constants.HF_HUB_OFFLINE
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "zoo"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert [encoded(one) for one in (main, v2, commit)] == expected


@pytest.mark.parametrize(
    ("offline", "options", "why"),
    [
        (True, {}, "HF_HUB_OFFLINE is set"),
        (False, {"local_files_only": True}, "local_files_only is set"),
        (False, {}, "the Hub cannot be reached (ConnectError: "),
    ],
)
def test_files_that_are_not_to_be_had_are_named_in_one_line(
    offline: bool, options: dict[str, Any], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve({}) as endpoint:
        pass  # nobody listens there any more
    constants = huggingface_hub.constants
    for name, value in {"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": offline, "ENDPOINT": endpoint}.items():
        monkeypatch.setattr(constants, name, value)
    with pytest.raises(DownloadError) as caught:
        encoded({"name": "acme/tiny", "vocab_size": 9, "revision": "v2", **options})
    message = str(caught.value)
    assert message.startswith(
        "tokenizer.name: acme/tiny at revision 'v2': tokenizer.json or what stands in for it is not in the local "
        f"cache, and {why}"
    )
    assert message.endswith(
        "; run `hf download acme/tiny --revision v2` where there is a network, or name a folder that holds it, "
        "such as ./tiny"
    )
    assert "\n" not in message
