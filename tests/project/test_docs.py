"""The documentation says what the code does."""

from __future__ import annotations

import importlib
import importlib.util
import re
import subprocess
import sys
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest

import zoo
from zoo.demo.data import load_digits
from zoo_core import errors
from zoo_core.errors import ConfigError

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def generator(name: str) -> Any:
    """Return the module in docs/ that writes a page."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_yaml_reference_is_what_the_configs_say() -> None:
    module = generator("generate_reference")
    assert module.TARGET.read_text() == module.reference(), "run: python docs/generate_reference.py"


def test_the_table_of_behaviours_is_what_the_tests_hold() -> None:
    module = generator("generate_behaviours")
    assert module.TARGET.read_text() == module.page(), "run: python docs/generate_behaviours.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_readme_names_the_public_functions() -> None:
    text = (ROOT / "README.md").read_text()
    missing = [name for name in zoo.__all__ if f"zoo.{name}" not in text and name != "ZooError"]
    assert not missing


def test_the_readme_opens_with_two_commands() -> None:
    """One installs and runs the main job, the other installs and runs the tests."""
    blocks = re.findall(r"```(?:sh|bash)\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    first, second = (block.strip() for block in blocks[:2])
    assert "\n" not in first and first.endswith("zoo demo")
    assert "\n" not in second and "pytest" in second
    lines = (ROOT / "README.md").read_text().splitlines()
    assert next(line for line in lines if "-m pytest" in line) == second
    ci = (ROOT / ".ci" / "run").read_text()
    assert "readme_command=$(grep -m1 -- '-m pytest' README.md)" in ci
    assert '\nbash -c "$readme_command"\n' in ci


def test_the_programs_of_the_readme_run(tmp_path: Path) -> None:
    """Every python block in turn, in one interpreter, in a folder with the files that they name."""
    text = (ROOT / "README.md").read_text()
    programs = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    (architecture,) = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    (tmp_path / "my-arch.yaml").write_text(architecture)
    digits = load_digits(0, 0.2).test
    digits.pictures[digits.labels.tolist().index(7)].save(tmp_path / "seven.png")
    program = "\n".join([*programs, 'print(zoo.config("my-arch.yaml").parameter_count())'])
    run = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == ["the digit seven", str(zoo.config(tmp_path / "my-arch.yaml").parameter_count())]


def test_the_script_of_an_open_clip_user_runs_and_its_names_are_ours(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "from-open-clip.md").read_text()
    (program,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    digits = load_digits(0, 0.2).test
    digits.pictures[digits.labels.tolist().index(7)].save(tmp_path / "seven.png")
    for weights in ('"digits-tiny", pretrained="epoch_1.pt"', '"mine"'):
        program += f"\nassert torch.equal(zoo.build({weights}).logit_scale, model.logit_scale)"
    run = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (0, "1\n"), run.stderr
    assert set(re.findall(r"\bzoo\.(\w+)", text)) <= set(zoo.__all__)


def test_the_readme_shows_the_errors_that_one_meets(tmp_path: Path) -> None:
    (shown,) = re.findall(r"```\n(my-arch.yaml:.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    path = tmp_path / "my-arch.yaml"
    path.write_text(
        "# my-arch.yaml\nextends: vit-b16\nvision: {patchsize: 6}\ntext: {width: 256, heads: 7, activation: quick_gelu}\n"
    )
    with pytest.raises(ConfigError) as caught:
        zoo.config(path)
    assert str(caught.value).replace(f"{tmp_path}/", "") == shown.strip()


def test_the_bounds_that_are_written_down_are_those_of_the_code() -> None:
    text = (ROOT / "docs" / "errors.md").read_text()
    rows = re.findall(r"^\| .* \| ([\d,]+) \| `([\w.]+):([\w.]+)` \|$", text, flags=re.MULTILINE)
    assert len(rows) == text.partition("## Bounds")[2].count("\n| ") - 1
    for number, module, name in rows:
        assert attrgetter(name)(importlib.import_module(module)) == int(number.replace(",", "")), f"{module}:{name}"


def test_the_errors_that_are_written_down_are_the_public_ones() -> None:
    text = (ROOT / "docs" / "errors.md").read_text()
    public = {name for name in errors.__all__ if name.endswith("Error")} - {"ZooError"}
    assert set(re.findall(r"`(\w+Error)`", text.partition("| situation")[2].partition("## Bounds")[0])) == public


def test_the_readme_counts_the_parameters_rightly() -> None:
    (counted,) = re.findall(r"parameter_count\(\) +# (\d+)", (ROOT / "README.md").read_text())
    assert int(counted) == zoo.config("vit-b16-quickgelu").parameter_count()


def resolves(name: str) -> bool:
    """Tell whether a dotted name is that of a module or of something in one."""
    module, _, attributes = name, "", ""
    while module:
        try:
            attrgetter(attributes)(importlib.import_module(module)) if attributes else importlib.import_module(module)
        except ModuleNotFoundError:
            module, _, last = module.rpartition(".")
            attributes = f"{last}.{attributes}".rstrip(".")
        except AttributeError:
            return False
        else:
            return True
    return False


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_module_and_file_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text()
    names = set(re.findall(r"`(zoo(?:_[a-z]+)?(?:\.\w+)+)(?:\([^`]*)?`", text)) - {"zoo.plugins", "zoo.json"}
    assert not [name for name in sorted(names) if not resolves(name)]
    paths = re.findall(r"`((?:core|plugins|zoo|tests|docs)/[\w./*-]+)`", text)
    assert not [path for path in sorted(paths) if not any(ROOT.glob(path.rstrip("/")))]
