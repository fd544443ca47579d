"""Declaration of CoCa."""

from collections.abc import Iterator

from zoo_core.plugin import ComponentSpec, hookimpl

ZOO_API_VERSION = 1


@hookimpl
def zoo_components() -> Iterator[ComponentSpec]:
    """Declare the parts of this plugin."""
    yield ComponentSpec(
        kind="model",
        name="coca",
        config="zoo_coca.config:CocaConfig",
        factory="zoo_coca.model:CoCa.from_config",
        summary="Two towers, a logit scale and a decoder that writes captions of images (CoCa)",
    )


@hookimpl
def zoo_exports() -> dict[str, str]:
    """Offer the model and the config of its decoder under the names that the field knows."""
    return {"CoCa": "zoo_coca.model:CoCa", "MultimodalCfg": "zoo_coca.config:MultimodalConfig"}
