"""Declaration of the tokenizer of tiktoken."""

from collections.abc import Iterator

from zoo_core.plugin import ComponentSpec, hookimpl

ZOO_API_VERSION = 1


@hookimpl
def zoo_components() -> Iterator[ComponentSpec]:
    """Declare the parts of this plugin."""
    yield ComponentSpec(
        kind="tokenizer",
        name="tiktoken",
        config="zoo_tiktoken.config:TiktokenConfig",
        factory="zoo_tiktoken.tokenizer:TiktokenTokenizer",
        summary="OpenAI's byte-pair encodings, with ids of their own for start, end and padding",
        requires=("tiktoken",),
    )
