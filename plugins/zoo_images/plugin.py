"""Declaration of the image preprocessors."""

from collections.abc import Iterator

from zoo_core.plugin import ComponentSpec, hookimpl

ZOO_API_VERSION = 1


@hookimpl
def zoo_components() -> Iterator[ComponentSpec]:
    """Declare the preprocessors."""
    yield ComponentSpec(
        kind="preprocessor",
        name="image",
        config="zoo_images.config:ImageConfig",
        factory="zoo_images.preprocessor:ImagePreprocessor",
        summary="Resize, crop or pad, and normalise pictures; random crops and colour for training",
    )
    yield ComponentSpec(
        kind="preprocessor",
        name="naflex",
        config="zoo_images.config:NaFlexImageConfig",
        factory="zoo_images.naflex:NaFlexPreprocessor",
        summary="Resize pictures in their own aspect ratio and cut them into patches; random crops for training",
    )
