"""Write docs/models.md from the architectures and the pretrained entries: `python docs/generate_models.py`.

The suite compares the file with what this module returns, so that the table never lags behind the files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

import zoo
from zoo_core.config import ModelConfig

TARGET = Path(__file__).with_name("models.md")
ALIASES = TARGET.parents[1] / "zoo" / "zoo" / "architectures" / "aliases.yaml"

INTRODUCTION = """# Which models

`zoo list` and `zoo.list_models()` name the architectures that are installed, `zoo list --pretrained` and
`zoo.list_pretrained()` the weights that there are for them. `zoo info NAME` shows one in full. This page is generated:
run `python docs/generate_models.py` after changing an architecture or an entry.

| you want | take |
|---|---|
| to try zoo without a network | `digits-tiny`, whose weights `demo` ship with it |
| a small model that everybody knows | `vit-b32`, such as `vit-b32:laion2b_s34b_b79k` |
| more than English | an architecture with `i18n`, `worldwide`, `siglip2`, `xlm-roberta` or `nllb` in its name |
| images in their own aspect ratio | an architecture with `naflex` in its name |
| captions of images | an architecture with `coca` in its name |
| weights under a licence | `zoo list --license apache-2.0` |

Every spelling works: `ViT-L/14`, `ViT-L-14` and `vit-l14` are one name. A pair `NAME:TAG` is an architecture and its
weights. Weights that were trained with QuickGELU stand under the architecture that has `quickgelu` in its name.

## Kinds

| model | vision tower | text tower | architectures |
|---|---|---|---|"""

TABLE = """
## Architectures

Parameters are counted by arithmetic; `?` is a tower of another library that has to be built for it. Image is the side
in pixels, width that of the embedding, ids the context length. Weights is the number of tags that
`zoo.list_pretrained()` knows.

| architecture | in open_clip | parameters | image | width | ids | weights |
|---|---|---|---|---|---|---|"""


def page() -> str:
    """Return the page."""
    configs = {name: zoo.config(name) for name in zoo.list_models()}
    return "\n".join([INTRODUCTION, *_kinds(configs), TABLE, *_rows(configs), ""])


def _kinds(configs: dict[str, ModelConfig]) -> Iterator[str]:
    kinds = Counter((config.component, config.vision.component, config.text.component) for config in configs.values())
    for kind, count in sorted(kinds.items()):
        yield f"| {' | '.join(f'`{part}`' for part in kind)} | {count} |"


def _rows(configs: dict[str, ModelConfig]) -> Iterator[str]:
    weights = zoo.list_pretrained()
    aliases = yaml.safe_load(ALIASES.read_text(encoding="utf-8"))
    for name, config in configs.items():
        other_names = [aliases[name]] if isinstance(aliases.get(name), str) else aliases.get(name, [])
        height, width = config.vision.image_size
        image = str(height) if height == width else f"{height} x {width}"
        count = config.parameter_count()
        cells: list[Any] = [
            f"`{name}`",
            ", ".join(f"`{alias}`" for alias in other_names),
            "?" if count is None else f"{count / 1e6:,.1f} M",
            image,
            config.embed_dim,
            config.text.context_length,
            len(weights.get(name, ())) or "",
        ]
        yield f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")
