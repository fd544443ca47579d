"""Declaration of the architectures, pretrained entries, recipes and evaluators that ship with zoo."""

from collections.abc import Iterator

from zoo_core.plugin import ComponentSpec, hookimpl

ZOO_API_VERSION = 1


@hookimpl
def zoo_architectures() -> str:
    """Offer the YAML files beside this module."""
    return "zoo:architectures"


@hookimpl
def zoo_pretrained() -> str:
    """Offer the pretrained entries beside this module."""
    return "zoo:pretrained"


@hookimpl
def zoo_recipes() -> str:
    """Offer the recipes beside this module."""
    return "zoo:recipes"


@hookimpl
def zoo_components() -> Iterator[ComponentSpec]:
    """Declare the evaluators."""
    yield ComponentSpec(
        kind="evaluator",
        name="zero-shot",
        config="zoo.training.evaluators.config:ZeroShotConfig",
        factory="zoo.training.evaluators.zero_shot:ZeroShot",
        summary="Zero-shot classification of a data set or of folders that are called as classes",
    )
    yield ComponentSpec(
        kind="evaluator",
        name="retrieval",
        config="zoo.training.evaluators.config:RetrievalConfig",
        factory="zoo.training.evaluators.retrieval:Retrieval",
        summary="Recall of image-text retrieval among the pairs of a data set",
    )
