"""Declaration of CLIP's text transformer, the modern one, and CLIP's byte-pair tokenizer."""

from collections.abc import Iterator

from zoo_core.plugin import ComponentSpec, hookimpl

ZOO_API_VERSION = 1


@hookimpl
def zoo_components() -> Iterator[ComponentSpec]:
    """Declare the parts of this plugin."""
    yield ComponentSpec(
        kind="text-tower",
        name="clip-transformer",
        config="zoo_text.clip.config:ClipTextConfig",
        factory="zoo_text.clip.tower:TextTransformer",
        summary="Text transformer with learned positions, as CLIP, SigLIP and CoCa use it",
        capabilities=frozenset(
            {"tokens", "intermediates", "locking", "gradient-checkpointing", "variable-text-length"}
        ),
    )
    yield ComponentSpec(
        kind="text-tower",
        name="modern-transformer",
        config="zoo_text.modern.config:ModernTextConfig",
        factory="zoo_text.modern.tower:ModernTextTransformer",
        summary="Text transformer with rotary positions, gates and registers, for rows of any length",
        capabilities=frozenset(
            {"tokens", "intermediates", "locking", "gradient-checkpointing", "variable-text-length"}
        ),
    )
    yield ComponentSpec(
        kind="tokenizer",
        name="clip-bpe",
        config="zoo_text.bpe.config:ClipBpeConfig",
        factory="zoo_text.bpe.tokenizer:ClipBpeTokenizer",
        summary="CLIP's lower-case byte-pair encoding of 49,408 tokens",
    )


@hookimpl
def zoo_exports() -> dict[str, str]:
    """Offer the text config under the name that the field knows."""
    return {"CLIPTextCfg": "zoo_text.clip.config:ClipTextConfig"}
