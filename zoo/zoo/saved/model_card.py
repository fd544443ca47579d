"""README of a saved model, made from its config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo_core.config import ModelConfig

__all__ = ["model_card"]

_CARD = """\
---
library_name: zoo
tags: [clip, zero-shot-image-classification, image-feature-extraction]
---

# {title}

A `{model}` model of {parameters} parameters with embeddings of width {embed_dim}, saved by zoo {zoo}.{source}

| part | component |
|---|---|
{parts}

{inputs}The model brings its own
preprocessing and tokenizer:

```python
import zoo

model = zoo.load("{address}")
{example}
```

`config.yaml` is the whole architecture and `model.safetensors` the weights. `zoo.json` holds the digest of every file
and what the model makes of {probe}: `zoo verify {address}` compares both.
"""


_EXAMPLE = 'image_logits, text_logits = model.get_logits("photo.jpg", ["a dog", "a cat"])'
_GENERAL_EXAMPLE = 'features = model.encode("{modality}", inputs, normalize=True)'


def model_card(config: ModelConfig, origin: Mapping[str, Any], *, title: str, address: str, parameters: int) -> str:
    """Return the README of a saved model, in Markdown with the metadata that the Hugging Face Hub reads."""
    summaries = "; ".join(filter(None, (tower.input_summary() for tower in config.towers.values())))
    is_of_images_and_text = list(config.towers) == ["image", "text"]
    return _CARD.format(
        title=title,
        model=config.component,
        parameters=f"{parameters:,}",
        embed_dim=config.embed_dim,
        zoo=origin["versions"]["zoo"],
        parts="\n".join(f"| {kind} | `{part}` |" for kind, part in origin["parts"].items()),
        inputs=f"{summaries[:1].upper()}{summaries[1:]}. " if summaries else "",
        example=_EXAMPLE if is_of_images_and_text else _GENERAL_EXAMPLE.format(modality=next(iter(config.towers))),
        probe="a fixed picture and fixed captions" if is_of_images_and_text else "fixed inputs",
        address=address,
        source=_source(origin.get("source", {})),
    )


def _source(source: Mapping[str, Any]) -> str:
    """Return a sentence about where the weights came from, or nothing."""
    if not source:
        return ""
    names = [source[key] for key in ("file", "repo") if key in source]
    origin = f"{' of '.join(f'`{name}`' for name in names)} at commit {source['commit']}" if names else ""
    licence = f" (licence: {source['license']})" if source.get("license") else ""
    if "tag" not in source:
        return f"\nIt was made from {origin}{licence}."
    return (
        f"\nIts weights are `{source['architecture']}:{source['tag']}`{f', from {origin}' if origin else ''}{licence}."
    )
