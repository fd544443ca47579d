"""Pretrained entries: those of open_clip, as data."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import open_clip
import pytest
import yaml
from open_clip.pretrained import _PRETRAINED

import zoo
from zoo.catalog.architectures import architectures
from zoo.catalog.pretrained import Pretrained, entries_of
from zoo_core.errors import CheckpointError, ConfigError, UnknownNameError
from zoo_core.registry import package_folder

MOVED = {("ViT-B-16-plus-240", "laion400m_e32"): "timm/vit_base_patch16_plus_clip_240.laion400m_e32"}
"""Repositories that are not the peer's: it names those of other weights."""

NAFLEX = {
    "vit-b16-siglip2-naflex": "timm/ViT-B-16-SigLIP2-naflex",
    "vit-so400m16-siglip2-naflex": "timm/ViT-SO400M-16-SigLIP2-naflex",
}
"""Repositories that the peer's development branch (89fb801) names, under the tag `webli`."""


def quick_gelu_twin(model: str) -> str:
    """Return the name of the peer's architecture with QuickGELU, if it has one beside `model`."""
    return next((name for name in (f"{model}-quickgelu", model) if name in _PRETRAINED), model)


def pairs() -> list[tuple[str, str]]:
    """Return the peer's architectures and tags; what needs QuickGELU counts for the architecture that has it."""
    found: dict[tuple[str, str], None] = {}
    for model, tags in _PRETRAINED.items():
        for tag, config in tags.items():
            found[(quick_gelu_twin(model) if config.get("quick_gelu") else model, tag)] = None
    return list(found)


@pytest.mark.parametrize(("model", "tag"), pairs())
def test_the_peers_weights_are_here_with_their_preprocessing_and_activation(model: str, tag: str) -> None:
    theirs: Any = _PRETRAINED[model][tag]
    entry = entries_of(model)[tag]
    assert entry.hub is not None
    repo, file = entry.hub.repo, entry.hub.file or ""
    assert f"{repo}/{file}" == theirs["hf_hub"].replace(
        theirs["hf_hub"].rpartition("/")[0], MOVED.get((model, tag), repo)
    )
    if (model, tag) not in MOVED:
        assert theirs["hf_hub"].rpartition("/")[0] == repo
    preprocess: Any = zoo.config(model, overrides=entry.overrides()).preprocess
    for key in ("mean", "std"):
        assert tuple(getattr(preprocess, key)) == tuple(theirs[key]), key
    for key in ("interpolation", "resize_mode"):
        assert getattr(preprocess, key) == theirs[key], key
    config: Any = zoo.config(model)
    for tower in (config.vision, config.text):
        if "activation" in type(tower).model_fields:
            assert tower.activation == entry.activation
    if theirs.get("quick_gelu") and entry.activation is not None:
        assert entry.activation == "quick_gelu"


@pytest.mark.parametrize("name", NAFLEX)
def test_the_development_branchs_weights_are_here_too(name: str) -> None:
    entry = entries_of(name)["webli"]
    assert entry.hub is not None and (entry.hub.repo, entry.activation) == (NAFLEX[name], "gelu_tanh")
    config: Any = zoo.config(name, overrides=entry.overrides())
    found = config.preprocess
    assert (found.type, found.interpolation, found.image_seq_len) == ("naflex", "bicubic", 576)
    assert found.mean == found.std == (0.5, 0.5, 0.5)
    assert (config.text.activation, config.tokenizer.cleaning) == ("gelu_tanh", "canonicalize")


def test_no_other_entries_are_here_but_the_demos() -> None:
    offered = {(name, tag) for name, tags in zoo.list_pretrained().items() for tag in tags}
    theirs = {(architectures().find(model).name, tag) for model, tag in pairs()}
    assert offered - theirs == {("digits-tiny", "demo"), *((name, "webli") for name in NAFLEX)}
    assert len(theirs) == 169
    assert set(open_clip.list_models()) >= set(_PRETRAINED)


def test_licences_agree_with_timm_where_it_states_one_for_the_same_repository() -> None:
    from timm.models import get_pretrained_cfg, list_pretrained

    known = set(list_pretrained())
    compared = 0
    for tags in zoo.list_pretrained().values():
        for entry in tags.values():
            repo = "" if entry.hub is None or entry.license == "unknown" else entry.hub.repo.removeprefix("timm/")
            if repo in known:
                theirs: Any = get_pretrained_cfg(repo)
                assert entry.license == theirs.license, repo
                compared += 1
    assert compared > 20


def test_every_entry_states_its_licence_or_where_its_authors_would_state_it() -> None:
    for plugin in architectures().registry.plugins:
        for file in Path(str(package_folder(plugin.pretrained))).glob("*.yaml") if plugin.pretrained else ():
            for tag, data in yaml.safe_load(file.read_text(encoding="utf-8")).items():
                assert data.get("license"), f"{file.name}: {tag}: state a licence, or 'unknown'"
    unknown = [
        entry for tags in zoo.list_pretrained().values() for entry in tags.values() if entry.license == "unknown"
    ]
    assert len(unknown) == 58
    for entry in unknown:
        assert entry.terms is not None and entry.hub is not None
        owner = entry.hub.repo.partition("/")[0]
        if owner == "timm":  # whose repositories hold what others trained
            assert entry.terms in ("https://github.com/openai/CLIP", "https://github.com/mlfoundations/open_clip")
        else:
            assert entry.terms == f"https://huggingface.co/{entry.hub.repo}"


def test_weights_are_found_by_their_licence() -> None:
    everything = zoo.list_pretrained()
    licences = {entry.license for tags in everything.values() for entry in tags.values()}
    assert {"apache-2.0", "mit", "unknown"} < licences
    counted = 0
    for licence in licences:
        found = zoo.list_pretrained(license=licence.upper())
        assert found == {
            name: kept
            for name, tags in everything.items()
            if (kept := {tag: entry for tag, entry in tags.items() if entry.license == licence})
        }
        counted += sum(map(len, found.values()))
    assert counted == sum(map(len, everything.values()))
    assert zoo.list_pretrained("rn50*", license="apache-2.0") == {}
    with pytest.raises(
        UnknownNameError, match=r"no weights are under the licence 'apache', did you mean 'apache-2.0'\?"
    ):
        zoo.list_pretrained(license="apache")


def test_an_address_of_terms_is_one() -> None:
    with pytest.raises(ConfigError, match="license_page"):
        Pretrained.parse({"path": "x", "license_page": "ask me"})
    assert Pretrained.parse({"path": "x"}).license == "unknown"
    assert Pretrained.parse({"path": "x"}).terms is None


RELEASES = {
    "metaclip": "cc-by-nc-4.0",
    "mobileclip": "apple-amlr",
    "apple/dfn": "apple-ascl",
    "visheratin/nllb": "cc-by-nc",
    "timm/eva0": "mit",
    "timm/pe-core": "apache-2.0",
    "ucsc-vlaa/": "apache-2.0",
    "timm/vit-.*siglip": "apache-2.0",
    "jienengchen/vitamin": "mit",
}
"""The licence of all weights of a release, by a pattern of the names of its repositories."""


@pytest.mark.parametrize("pattern", RELEASES)
def test_every_entry_of_a_release_says_under_which_licence_it_is(pattern: str) -> None:
    """Weights of some may not be sold: a user who looks for a licence must not miss it."""
    found = [
        entry.license
        for tags in zoo.list_pretrained().values()
        for entry in tags.values()
        if entry.hub is not None and re.search(pattern, entry.hub.repo.lower())
    ]
    assert len(found) > 4
    assert set(found) == {RELEASES[pattern]}


def test_licences_are_those_that_timm_states_for_the_image_towers() -> None:
    from timm.models import get_pretrained_cfg, list_pretrained

    stated: dict[str, set[str]] = {}
    for name in list_pretrained():
        found: Any = get_pretrained_cfg(name)
        stated.setdefault(name.partition(".")[0], set()).add(found.license)
    compared = 0
    for pattern in ("*siglip*", "vitamin*", "pe-core*", "eva0*"):
        for name, tags in zoo.list_pretrained(pattern).items():
            backbone = stated[zoo.config(name).vision.data()["name"]]
            for entry in tags.values():
                if "nllb" not in name:  # its image tower is one of SigLIP, its text tower is not
                    assert {entry.license} == backbone, name
                    compared += 1
    assert compared == 55


@pytest.mark.parametrize(("model", "tag"), pairs())
def test_captions_were_read_as_the_peer_reads_them(model: str, tag: str) -> None:
    section = open_clip.get_model_config(model)["text_cfg"]
    trained = entries_of(model)[tag].text
    cleaning = section.get("tokenizer_kwargs", {}).get("clean")
    if "hf_model_name" in section:
        assert (trained.cleaning, trained.padding) == (cleaning or "whitespace", "masked")
        return
    given = open_clip.CLIPTextCfg(**section)
    if given.hf_tokenizer_name is None:
        tokenizer: Any = open_clip.get_tokenizer(model)
        assert tokenizer.clean_fn.__name__ == f"_clean_{trained.cleaning}"
    else:
        assert trained.cleaning == (cleaning or "whitespace")
    later = given.no_causal_mask or given.pool_type not in ("argmax", "eos")  # then the feature depends on what follows
    assert trained.padding == ("masked" if given.embed_cls else "read" if later else "unreached")


def test_every_entry_holds_its_architecture_to_its_text_contract() -> None:
    for name, tags in zoo.list_pretrained().items():
        contract = zoo.config(name).text_contract()
        for tag, entry in tags.items():
            assert (entry.text.cleaning, entry.text.padding) == (contract.cleaning, contract.padding), (name, tag)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tokenizer.cleaning=lower", "was trained with text cleaning 'canonicalize', but .* is 'lower'"),
        ("text.causal=true", "was trained with text padding 'read', but .* is 'unreached'"),
    ],
)
def test_weights_of_siglip_are_refused_where_captions_would_be_read_otherwise(override: str, message: str) -> None:
    pooled = ["text.pool_type=eos", "text.eos_id=1"] if override.startswith("text") else []
    with pytest.raises(CheckpointError, match=f"pretrained 'webli' {message}"):
        zoo.build("vit-b16-siglip", pretrained="webli", overrides=[override, *pooled], local_files_only=True)
