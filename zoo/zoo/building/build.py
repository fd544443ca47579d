"""Models, tokenizers, preprocessing and losses from their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, assert_never, cast

from zoo.building.assemble import assemble, processor_of
from zoo.building.load import build_saved
from zoo.building.pretrained import allow_resampling, resolve_tag, weights_of
from zoo.building.source import Source, resolve
from zoo.catalog.architectures import load_config, registry
from zoo.checkpoints.load import checked_options
from zoo.checkpoints.match import LoadOptions
from zoo.saved.tokenizer_files import read_foreign_tokenizer, read_tokenizer
from zoo_core.boundary import checked
from zoo_core.config import ComponentConfig, LossConfig, ModelConfig, Section
from zoo_core.errors import ConfigError, InputError, Problem, describe
from zoo_core.nn.processors import tell_if_slow
from zoo_core.registry import squash
from zoo_core.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    import torch

    from zoo_core.images import Preprocessor
    from zoo_core.interfaces import Loss
    from zoo_core.models.dual_encoder import BuiltModel, DualEncoder
    from zoo_core.nn.position_embedding import Resampling

__all__ = ["build", "build_source", "loss", "preprocess", "tokenizer"]

LOSSES = {
    "clip": "contrastive",
    "infonce": "contrastive",
    "siglip": "sigmoid",
    "coca": "coca",
    "distill": "distillation",
    "distillclip": "distillation",
}
"""Losses by what other libraries call them, without "loss"."""


@checked
def build(
    source: str | Path | Mapping[str, Any] | ModelConfig,
    *,
    pretrained: str | Path | None = None,
    overrides: Sequence[str] = (),
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    towers: Sequence[str] | None = None,
    weights: str | None = None,
    resize: Resampling | None = None,
    logit_bias: float | None = None,
    local_files_only: bool = False,
    optimize: Literal["inference"] | None = None,
) -> BuiltModel:
    """Build a model, ready for inference.

    Args:
        source: the name of an architecture in any spelling (`"vit-b16"`, `"ViT-B/16"`), a YAML file, a mapping, a
            config, a folder that `zoo.save` wrote, one of another library that states its architecture, or
            `"hf-hub:organisation/name[@revision]"`, which holds a folder.
        pretrained: a tag of this architecture (see `zoo info`), which brings the preprocessing of its training and is
            downloaded where it has to be, or the path of a checkpoint: a file or folder of any container and format
            that an installed plugin knows. None draws random weights (from torch's global generator), but for a
            folder, which brings its own.
        overrides: `"key.path=value"` changes of the architecture.
        device: where the model lives; the CPU where None.
        dtype: of every floating-point parameter; that of the weights, or float32, where None. Half precision on a CPU
            that has no instructions for it is slower than float32, which is told once.
        towers: modalities such as `("image",)` or `("text",)`, whose towers alone are built and read; all where None.
        weights: which state dict of a training checkpoint: None for the trained one, `"ema"` for its average, or its
            name in the file.
        resize: resample positions of another image size (`"bicubic"` or `"bilinear"`) or context length (linearly).
            Where `overrides` ask for another size than that of the weights, that is `"bicubic"`.
        logit_bias: value of the model's logit bias where the weights have none.
        local_files_only: take what comes from the Hub from its local cache, as with `HF_HUB_OFFLINE=1`.
        optimize: `"inference"` gives the towers the forms that are measured to be the fastest on this machine, which
            takes seconds once and is remembered; features stay the same but for rounding. `model.optimizations` tells
            what was done. Such a model cannot be trained, saved, moved or cast any more.

    Returns:
        the model in evaluation mode, with `config`, `tokenizer`, `preprocess` and `notes` of what was assumed.

    Raises:
        ConfigError: the architecture is wrong; every problem is named with its file, line and key.
        UnknownNameError: no such architecture or tag; the nearest one is named.
        CheckpointError: the weights are damaged, not finite, or do not fit the architecture; the line says how.
        DownloadError: a file of the Hub cannot be had, or has other bytes than it should.
        InputError: another argument is wrong.
    """
    if optimize not in (None, "inference"):
        raise InputError(f"optimize must be 'inference' or None, found {describe(optimize)}")
    model = build_source(
        resolve(source, tags=False, local_files_only=local_files_only),
        pretrained=pretrained,
        overrides=overrides,
        options=LoadOptions(weights, resize, logit_bias),
        local_files_only=local_files_only,
        optimize=optimize is not None,
        target={"device": device, "dtype": dtype, "towers": towers},
    )
    return cast("BuiltModel", model)


def build_source(
    source: Source,
    *,
    pretrained: str | Path | None = None,
    overrides: Sequence[str] = (),
    options: LoadOptions | None = None,
    local_files_only: bool = False,
    optimize: bool = False,
    target: Mapping[str, Any] | None = None,
) -> DualEncoder:
    """Do what `build` does for a source that is resolved already; `target` holds `device`, `dtype` and `towers`.

    Raises:
        ZooError: as `build`.
    """
    options, target = checked_options(options or LoadOptions()), target or {}
    if pretrained is not None and source.has_weights:
        what = "model" if source.kind == "foreign" else "saved model"
        raise InputError(
            f"{source.argument} is a {what} with weights of its own; leave out pretrained={describe(pretrained)}"
        )
    match source.kind:
        case "saved":
            assert source.saved is not None
            probe = False if overrides else None
            model = build_saved(source.saved, overrides, options=options, probe=probe, **target)
        case "foreign":
            model = _build_foreign(source, overrides, options, target)
        case "name" | "file" | "mapping" | "config":
            model = _build_architecture(source, pretrained, overrides, options, local_files_only, target)
        case _:
            assert_never(source.kind)
    if optimize:
        from zoo.inference.autotune import optimize_for_inference  # it takes time to import, and few ask for it

        optimize_for_inference(model)
    else:
        tell_if_slow(model)
    return model


def _build_foreign(
    source: Source, overrides: Sequence[str], options: LoadOptions, target: Mapping[str, Any]
) -> DualEncoder:
    """Build the model of a folder of another library."""
    assert source.folder is not None
    config = source.config_with(overrides) if overrides else source.config
    # overrides may mend what is refused without them
    trained = load_config(source.foreign_config or {}) if overrides else config
    options = allow_resampling(replace(options, folder_config=trained), trained, config)
    model = assemble(config, weights=source.folder, options=options, overrides=overrides, **target)
    if config.tokenizer.files_key() == trained.tokenizer.files_key():  # else overrides name another one
        read_foreign_tokenizer(model.tokenizer, source.folder)
    return model


def _build_architecture(
    source: Source,
    pretrained: str | Path | None,
    overrides: Sequence[str],
    options: LoadOptions,
    local_files_only: bool,
    target: Mapping[str, Any],
) -> DualEncoder:
    """Build an architecture, with the weights of a tag or a file, or with random ones."""
    tag = pretrained if pretrained is not None else source.tag
    if tag is None:
        config = source.config_with(overrides)
        if options != LoadOptions():
            raise InputError("weights=, resize= and logit_bias= say how weights are loaded, but pretrained= names none")
        return assemble(config, **target)
    entry = resolve_tag(source.argument, tag)
    entry_overrides = [] if entry is None else entry.overrides()  # the preprocessing of its training
    config = load_config(source.argument, [*entry_overrides, *overrides] if entry_overrides else overrides)
    if overrides:
        options = allow_resampling(options, load_config(source.argument, entry_overrides), config)
    if entry is None:
        weights = Path(tag)
    else:
        weights = weights_of(entry, config, str(tag), local_files_only=local_files_only)
        options = replace(options, described=True)
    return assemble(config, weights=weights, options=options, overrides=overrides, **target)


@checked
def tokenizer(source: str | Path | Any, *, local_files_only: bool = False) -> Tokenizer:
    """Return the tokenizer of a model, or of an architecture or a saved model given as in `build`."""
    of_model = getattr(source, "tokenizer", None)
    if isinstance(of_model, Tokenizer):
        return of_model
    resolved = resolve(source, tags=False, local_files_only=local_files_only)
    built = cast("Tokenizer", processor_of(resolved.config, "text"))
    if resolved.saved is not None:
        read_tokenizer(built, resolved.saved)
    elif resolved.folder is not None:
        read_foreign_tokenizer(built, resolved.folder)
    return built


@checked
def preprocess(source: str | Path | Any, train: bool = False, *, local_files_only: bool = False) -> Preprocessor:
    """Return what turns an image into a tensor for a model, an architecture or a saved model given as in `build`.

    Args:
        source: a model, an architecture, or a saved model.
        train: with the random augmentation of training instead of the fixed path of evaluation.
        local_files_only: that of `build`.
    """
    value = cast("object", source)
    if isinstance(value, ComponentConfig | str | Path | Mapping):
        config = resolve(cast("object", value), tags=False, local_files_only=local_files_only).config
    else:
        config = getattr(value, "config", None)
    if not isinstance(config, ModelConfig):
        raise InputError(
            "expected an architecture or a model that zoo.build made, "
            f"found {type(cast('object', value)).__name__} without a config"
        )
    return cast("Preprocessor", processor_of(config, "image", train))


@checked
def loss(name: str, **options: Any) -> Loss:
    """Return a loss by name, such as `zoo.loss("contrastive")`.

    Raises:
        ConfigError: unknown loss or option; the nearest name is offered.
    """
    declared = {component.spec.name for component in registry().components("loss")}
    other = LOSSES.get(squash(name).removesuffix("loss")) if isinstance(cast("object", name), str) else None
    if other and name not in declared:
        message = f"'{name}' is written zoo.loss('{other}') here"
        raise ConfigError(Problem(message, "type", source="loss"))
    config = Section(LossConfig).parse({"type": name, **options}, "loss", registry())
    return cast("Loss", registry().get("loss", config.component).build(config))
