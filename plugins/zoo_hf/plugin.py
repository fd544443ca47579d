"""Declaration of the text encoders and the tokenizers of transformers."""

from collections.abc import Iterator

from zoo_core.plugin import ComponentSpec, hookimpl

ZOO_API_VERSION = 1


@hookimpl
def zoo_components() -> Iterator[ComponentSpec]:
    """Declare the parts of this plugin."""
    yield ComponentSpec(
        kind="text-tower",
        name="hf-text",
        config="zoo_hf.config:HfTextConfig",
        factory="zoo_hf.tower:HfTextTower",
        summary="Any encoder of Hugging Face transformers, pooled and projected",
        requires=("transformers",),
        capabilities=frozenset(
            {"tokens", "intermediates", "locking", "gradient-checkpointing", "variable-text-length"}
        ),
    )
    yield ComponentSpec(
        kind="tokenizer",
        name="hf",
        config="zoo_hf.config:HfTokenizerConfig",
        factory="zoo_hf.tokenizer:HfTokenizer",
        summary="Any tokenizer of Hugging Face transformers, from the Hub or a folder",
        requires=("transformers", "tokenizers", "sentencepiece"),
    )
