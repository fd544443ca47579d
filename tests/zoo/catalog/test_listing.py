"""The list of architectures: recorded sizes of the shipped ones, and when they do not count."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import zoo
from zoo.catalog.architectures import architectures
from zoo.catalog.listing import DATA, Listing, list_architectures
from zoo_core.architectures import Architectures, Entry
from zoo_core.architectures.load import ArchitectureLoader
from zoo_core.registry import Registry

ROOT = Path(zoo.__file__).parents[2]


def by_name(catalog: Architectures) -> dict[str, Listing]:
    """Return the listings of a catalog, as if its plugins were the installed ones."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("zoo.catalog.listing.architectures", lambda: catalog)
        patched.setattr("zoo.catalog.listing.loader", lambda: ArchitectureLoader(catalog))
        return {listing.name: listing for listing in list_architectures()}


@pytest.fixture
def catalog() -> Architectures:
    return Architectures(zoo.registry())


@pytest.fixture
def unvalidated(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object, **__: object) -> None:
        raise AssertionError("a config was validated")

    monkeypatch.setattr(ArchitectureLoader, "load", load)


def test_the_recorded_sizes_are_those_of_the_configs() -> None:
    spec = importlib.util.spec_from_file_location("generate_catalog", ROOT / "docs" / "generate_catalog.py")
    assert spec is not None and spec.loader is not None
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    assert DATA.read_text() == generator.listing(), "run: python docs/generate_catalog.py listing"


@pytest.mark.usefixtures("unvalidated")
def test_shipped_architectures_are_listed_without_validating_one(catalog: Architectures) -> None:
    listings = by_name(catalog)
    assert list(listings) == zoo.list_models()
    assert {listing.problem for listing in listings.values()} == {None}
    assert listings["vit-b16"].image_size == (224, 224)


def torn(path: Path) -> None:
    path.write_text("embed_dim: {")


PROBLEMS: dict[Callable[[Path], Any], str] = {torn: "is not YAML", Path.unlink: "No such file"}


@pytest.mark.parametrize("change", PROBLEMS)
def test_a_broken_file_is_a_problem_of_its_own(
    change: Callable[[Path], Any], catalog: Architectures, tmp_path: Path
) -> None:
    for entry in catalog.entries:
        shutil.copy(entry.path, tmp_path)
    catalog.__dict__["entries"] = tuple(replace(entry, path=tmp_path / entry.path.name) for entry in catalog.entries)
    change(tmp_path / "vit-e14.yaml")
    listings = by_name(catalog)
    assert "vit-e14.yaml" in (listings["vit-e14"].problem or "")
    assert PROBLEMS[change] in (listings["vit-e14"].problem or "")
    assert listings["vit-e14"].parameters is None
    assert listings["vit-b16"] == by_name(architectures())["vit-b16"]


def test_a_changed_number_is_shown(catalog: Architectures, tmp_path: Path) -> None:
    shutil.copy(architectures().find("vit-b16").path, tmp_path)
    (tmp_path / "vit-b16.yaml").write_text((tmp_path / "vit-b16.yaml").read_text().replace("512", "640"))
    catalog.__dict__["entries"] = tuple(
        replace(entry, path=tmp_path / entry.path.name) if entry.name == "vit-b16" else entry
        for entry in catalog.entries
    )
    assert by_name(catalog)["vit-b16"].embed_dim == 640


def test_sizes_do_not_count_without_the_components_that_they_were_computed_from() -> None:
    listings = by_name(Architectures(Registry(one for one in zoo.registry().plugins if one.name != "timm")))
    assert "unknown vision-tower 'timm'" in (listings["convnext-base"].problem or "")
    assert listings["vit-b16"] == by_name(architectures())["vit-b16"]


def test_a_name_that_another_plugin_claims_as_an_alias_is_a_problem(catalog: Architectures) -> None:
    own = architectures().find("vit-b32")
    stranger = Entry("acme-b16", own.path, replace(own.plugin, distribution="acme", architectures="acme:files"))
    catalog.__dict__["entries"] = (*catalog.entries, replace(stranger, aliases=("ViT-B-16",)))
    listings = by_name(catalog)
    assert "'vit-b16' is offered by" in (listings["vit-b16"].problem or "")
    assert listings["vit-l14"].problem is None
