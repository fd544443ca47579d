"""`zoo list`, `zoo info` and `zoo plugins`."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

import pytest
import yaml

import zoo
from support.command_line import Run, program


def test_list_as_json_agrees_with_the_configs(run: Run) -> None:
    status, out, err = run("list", "--json")
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert [one["name"] for one in found] == zoo.list_models()
    for one in found:
        config = zoo.config(one["name"])
        assert one["parameters"] == config.parameter_count()
        assert one["image_size"] == list(config.vision.image_size)
        assert one["embed_dim"] == config.embed_dim
        assert one["problem"] is None
    assert next(one for one in found if one["name"] == "vit-b16")["aliases"] == ["ViT-B-16"]


def test_list_is_a_table_with_names_sizes_and_aliases(run: Run) -> None:
    lines = run("list", "vit-b16*")[1].splitlines()
    assert lines[0].split() == ["NAME", "PARAMETERS", "IMAGE", "EMBED", "ALIAS"]
    assert lines[1].split() == ["vit-b16", "149.6M", "224", "512", "ViT-B-16"]
    assert [line.split()[0] for line in lines[1:]] == zoo.list_models("vit-b16*")


def test_list_takes_a_pattern_of_aliases(run: Run) -> None:
    assert [one["name"] for one in json.loads(run("list", "ViT-L-14", "--json")[1])] == ["vit-l14"]


@pytest.mark.parametrize(
    ("plain", "parsed"),
    [
        ([], ["--"]),
        (["siglip"], ["--", "siglip"]),
        (["--json"], ["--json", "--"]),
        (["ViT-L-14", "--json"], ["--json", "--", "ViT-L-14"]),
        (["--json", "vit-b16*", "--json"], ["--json", "--", "vit-b16*"]),
        (["zzz"], ["--", "zzz"]),
        ([""], ["--", ""]),
    ],
)
def test_a_plain_list_is_what_the_parser_of_every_other_line_gives(
    plain: list[str], parsed: list[str], run: Run
) -> None:
    assert run("list", *plain) == run("list", *parsed)


def test_more_patterns_than_one_and_unknown_options_are_usage_errors(run: Run) -> None:
    assert run("list", "a", "b")[0] == run("list", "-x")[0] == run("list", "a", "--jsn")[0] == 2


def test_a_plain_list_imports_no_parser_no_validation_and_no_renderer() -> None:
    code = """
import sys
from zoo.cli.app import main
assert main(["list"]) == 0
print(*{"typer", "pydantic", "rich", "omegaconf", "torch", "numpy"} & set(sys.modules), file=sys.stderr)
"""
    assert program(code=code).stderr == "\n"


def test_a_pattern_that_matches_nothing_is_told_and_is_an_empty_list(run: Run) -> None:
    status, out, err = run("list", "zzz")
    assert (status, out) == (0, "")
    assert "no architecture matches 'zzz'" in err
    assert run("list", "zzz", "--pretrained")[1:] == ("", "no weights are known for 'zzz'\n")
    assert run("list", "zzz", "--json") == (0, "[]\n", "")


def test_an_empty_list_names_the_plugins_that_cannot_be_used(strangers: Path) -> None:
    done = program("list", "wreck*", path=strangers)
    assert done.returncode == 0
    assert "quarantined plugins: wreck (wrecked 1.2)" in done.stderr


@pytest.mark.parametrize("columns", [20, 40, 60, 80, 200])
def test_a_terminal_of_any_width_shows_every_word_whole(
    columns: int, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = (["list", "siglip"], ["list", "vit-b16*", "--pretrained"], ["info", "vit-b16"], ["plugins"])
    wide = [sorted(run(*command)[1].split()) for command in commands]
    monkeypatch.setenv("COLUMNS", str(columns))
    for command, words in zip(commands, wide, strict=True):
        out = run(*command)[1]
        assert sorted(out.split()) == words, command
    lines = run("plugins")[1].splitlines()
    assert max(map(len, lines)) <= max(columns, 94)  # folded between words, of which the longest need as much


def test_a_part_of_a_name_lists_what_has_it_and_a_whole_name_itself(run: Run) -> None:
    siglips = json.loads(run("list", "siglip", "--json")[1])
    assert [one["name"] for one in siglips] == zoo.list_models("*siglip*")
    assert len(siglips) > 20
    assert zoo.list_models("SigLIP2-256") == zoo.list_models("*siglip2-256*")
    for whole in ("vit-b16", "ViT-B-16", "ViT-B/16", "vit_b_16"):
        assert zoo.list_models(whole) == ["vit-b16"]
    assert zoo.list_models("") == zoo.list_models("vit-b1?x") == []
    assert set(zoo.list_pretrained("so400m")) == set(zoo.list_pretrained("*so400m*"))


def test_weights_are_listed_by_licence(run: Run) -> None:
    status, out, _ = run("list", "--license", "apache-2.0")
    assert status == 0
    assert {line.split()[-1] for line in out.splitlines()[1:]} == {"apache-2.0"}
    found = json.loads(run("list", "vit-b16", "--license", "unknown", "--json")[1])["vit-b16"]
    assert found["laion400m_e31"]["terms"] == "https://github.com/mlfoundations/open_clip"
    status, out, err = run("list", "rn50", "--license", "apache-2.0")
    assert (status, out, err) == (0, "", "no weights under the licence 'apache-2.0' are known for 'rn50'\n")
    assert run("list", "--license", "apache")[0] == 2
    told = " ".join(run("info", "vit-b16")[1].split())
    assert "unknown, see https://huggingface.co/laion/CLIP-ViT-B-16-laion2B-s34B-b88K as the architecture" in told


def test_info_as_json_tells_config_sizes_and_provenance(run: Run) -> None:
    status, out, err = run("info", "ViT-B/16-quickgelu", "--json")
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert found["name"] == "vit-b16-quickgelu"
    assert found["aliases"] == ["ViT-B-16-quickgelu"]
    assert found["parameters"] == 149_620_737  # of open_clip's ViT-B-16
    assert found["towers"]["vision"] == {"component": "vit", "parameters": 86_192_640}
    assert found["towers"]["text"] == {"component": "clip-transformer", "parameters": 63_428_096}
    assert found["file"].endswith("vit-b16-quickgelu.yaml")
    assert found["config"]["vision"]["activation"] == "quick_gelu"
    assert zoo.config(found["config"]) == zoo.config("vit-b16-quickgelu")
    assert set(found["components"]) == {"model", "vision", "text", "tokenizer", "preprocess"}
    vision = found["components"]["vision"]
    assert (vision["distribution"], vision["version"]) == ("clip-zoo", importlib.metadata.version("clip-zoo"))
    assert "locking" in vision["capabilities"]
    assert found["text_contract"] == zoo.config("vit-b16").text_contract().to_dict()
    assert found["text_contract"]["pooled_at"] == "largest id"
    assert found["pretrained"]["openai"]["from"] == "timm/vit_base_patch16_clip_224.openai"
    assert found["pretrained"]["metaclip_400m"]["license"] == "cc-by-nc-4.0"


def test_list_names_every_pair_of_architecture_and_weights(run: Run) -> None:
    status, out, _ = run("list", "vit-b32*", "--pretrained")
    assert status == 0
    assert ["vit-b32-quickgelu", "openai", "timm/vit_base_patch32_clip_224.openai", "quick_gelu", "unknown"] in [
        line.split() for line in out.splitlines()
    ]
    assert "rn50" not in out
    assert (
        json.loads(run("list", "--pretrained", "--json")[1])["rn50-quickgelu"]["openai"]["activation"] == "quick_gelu"
    )


def test_info_names_pretrained_tags(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo.catalog.pretrained import Pretrained

    entry = Pretrained(
        path=Path("x.safetensors"), description="from a test", license="mit", preprocess={"resize_mode": "squash"}
    )
    monkeypatch.setattr("zoo.building.describe.entries_of", lambda name: {"best": entry} if name == "vit-b16" else {})
    told = json.loads(run("info", "vit-b16", "--json")[1])["pretrained"]["best"]
    assert (told["from"], told["description"], told["license"]) == ("x.safetensors", "from a test", "mit")
    assert "best x.safetensors mit resize_mode=squash from a test" in " ".join(run("info", "vit-b16")[1].split())


def test_info_prints_the_config_as_yaml_that_can_be_used(run: Run) -> None:
    status, out, _ = run("info", "vit-b32")
    assert status == 0
    assert "151,277,313" in out  # of open_clip's ViT-B-32
    assert zoo.config(yaml.safe_load(out[out.index("\nmodel: ") :])) == zoo.config("vit-b32")


def test_info_takes_a_file_and_a_saved_folder(run: Run, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("extends: vit-b16\nembed_dim: 256\n")
    assert json.loads(run("info", tmp_path / "own.yaml", "--json")[1])["config"]["embed_dim"] == 256
    assert json.loads(run("info", tiny, "--json")[1])["config"]["embed_dim"] == 16


def test_plugins_tells_every_component_with_its_distribution(run: Run) -> None:
    status, out, err = run("plugins", "--json")
    assert (status, err) == (0, "")
    found = {one["name"]: one for one in json.loads(out)}
    assert {one["status"] for one in found.values()} == {"ok"}
    assert found["vit"]["distribution"] == "clip-zoo"
    (tower,) = found["vit"]["components"]
    assert (tower["kind"], tower["name"], tower["missing"]) == ("vision-tower", "vit", [])
    assert "locking" in tower["capabilities"]
    assert tower["summary"]


STRANGER = """
from zoo_core.plugin import ComponentSpec, hookimpl
ZOO_API_VERSION = 1
@hookimpl
def zoo_components():
    parts = dict(config="acme.config:Config", factory="acme.tower:Tower")
    yield ComponentSpec("vision-tower", "vit", summary="ours is better", **parts)
    yield ComponentSpec("vision-tower", "mean-pool", requires=("no-such-package",), **parts)
@hookimpl
def zoo_architectures():
    return "acme:architectures"
"""


CRASH = """
class Config(VisionTowerConfig):
    tower: str = "mean-pool"
    def parameter_count(self, embed_dim):
        return 1 // 0
"""


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two distributions: one clashes with ours and ships broken files too, the other cannot be imported."""
    root = tmp_path_factory.mktemp("site")
    (root / "acme" / "architectures").mkdir(parents=True)
    (root / "acme" / "__init__.py").touch()
    (root / "acme" / "plugin.py").write_text(STRANGER)
    (root / "acme" / "config.py").write_text("from zoo_core.config import VisionTowerConfig\n" + CRASH)
    for name, text in {
        "acme-good": "extends: vit-b32",
        "acme-typo": "extends: vit-b32\nembed_dims: 3",
        "acme-torn": "vision: {",
        "acme-crash": "extends: vit-b32\nvision: {tower: mean-pool, image_size: 32}",
        "vit-e14": "extends: vit-b32",
    }.items():
        (root / "acme" / "architectures" / f"{name}.yaml").write_text(text)
    (root / "broken_plugin.py").write_text("raise RuntimeError('no licence')")
    for name, entry in {"acme-towers": "acme = acme.plugin", "wrecked": "wreck = broken_plugin"}.items():
        info = root / f"{name.replace('-', '_')}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[zoo.plugins]\n{entry}\n")
    return root


def test_a_strangers_broken_file_is_a_row_of_the_list(strangers: Path) -> None:
    done = program("list", "--json", path=strangers)
    assert (done.returncode, done.stderr) == (0, "")
    found = {one["name"]: one for one in json.loads(done.stdout)}
    assert found["acme-good"]["parameters"] == zoo.config("vit-b32").parameter_count()
    assert "acme-typo.yaml:2:1: embed_dims: unknown key" in found["acme-typo"]["problem"]
    assert "acme-torn.yaml:2:1: is not YAML" in found["acme-torn"]["problem"]
    assert found["acme-torn"]["parameters"] is None
    assert found["acme-crash"]["problem"].startswith(
        "vision-tower 'mean-pool' of acme-towers 1.2: parameter_count failed: ZeroDivisionError: "
    )
    assert found["vit-l14"]["parameters"] == zoo.config("vit-l14").parameter_count()
    # a name that two distributions offer is listed as it can be built
    assert found["acme-towers/vit-e14"]["parameters"] == zoo.config("vit-b32").parameter_count()
    assert found["clip-zoo/vit-e14"]["parameters"] == zoo.config("vit-e14").parameter_count()
    table = program("list", "acme-*", path=strangers)
    assert table.returncode == 0
    assert "embed_dims: unknown key" in table.stdout


def test_plugins_tells_the_clashing_the_quarantined_and_the_missing(strangers: Path) -> None:
    done = program("plugins", "--json", path=strangers)
    assert (done.returncode, done.stderr) == (0, "")
    found = {one["name"]: one for one in json.loads(done.stdout)}
    assert found["wreck"]["status"] == "quarantined"
    assert found["wreck"]["reason"] == "RuntimeError: no licence"
    assert found["acme"]["status"] == found["vit"]["status"] == "clash"
    owners = ["acme (acme-towers 1.2)", f"vit (clip-zoo {importlib.metadata.version('clip-zoo')})"]
    assert found["vit"]["clashes"] == [{"kind": "vision-tower", "name": "vit", "owners": owners}]
    assert [one["kind"] for one in found["acme"]["clashes"]] == ["vision-tower", "architecture"]
    assert found["acme"]["components"][1]["missing"] == ["no-such-package"]
    assert found["text"]["status"] == "ok"
    table = program("plugins", path=strangers).stdout
    for words in (
        "RuntimeError: no licence",
        f"is claimed by {' and by '.join(owners)}",
        "needs no-such-package",
    ):
        assert words in table
