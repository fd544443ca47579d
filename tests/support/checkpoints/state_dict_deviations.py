"""State dicts that differ from open_clip's, and why."""

from __future__ import annotations

DEVIATIONS = {
    "coca_roberta-ViT-B-32": {
        "text_decoder.text_projection": (
            (768, 50_265),
            "the peer's head has CLIP's vocabulary, and roberta's is 50,265",
        )
    },
}
"""Entries that are not the peer's: ours, and why."""
