"""From a name to a model that knows its tokenizer and its preprocessing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from zoo.building.assemble import assemble, preprocessor_of, tokenizer_of
from zoo.building.load import build_folder
from zoo.building.pretrained import allow_resampling, resolve_tag, weights_of
from zoo.building.source import config_of, locate_model, stated
from zoo.catalog.architectures import config as load_config
from zoo.catalog.architectures import config_of_folder, registry
from zoo.checkpoints.load import checked_options
from zoo.checkpoints.match import LoadOptions
from zoo.saved.read import check_folder, is_folder
from zoo.saved.tokenizer_files import read_stated_tokenizer, read_tokenizer
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

__all__ = ["build", "loss", "preprocess", "tokenizer"]

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
            downloaded where it has to be, or the path of a checkpoint: a file or folder of any container and layout
            that an installed plugin knows. None draws random weights (from torch's global generator), but for a
            folder, which brings its own.
        overrides: `"key.path=value"` changes of the architecture.
        device: where the model lives; the CPU where None.
        dtype: of every floating-point parameter; that of the weights, or float32, where None. Half precision on a CPU
            that has no instructions for it is slower than float32, which is told once.
        towers: `("image",)` or `("text",)` builds and reads one tower only; both where None.
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
    options = LoadOptions(weights, resize, logit_bias)
    place = {"device": device, "dtype": dtype, "towers": towers}
    model = _built(source, pretrained, overrides, options, local_files_only, **place)
    if optimize:
        from zoo.inference.autotune import optimize_for_inference

        optimize_for_inference(model)
    else:
        tell_if_slow(model)
    return cast("BuiltModel", model)


def _built(
    source: str | Path | Any,
    pretrained: str | Path | None,
    overrides: Sequence[str],
    options: LoadOptions,
    local_files_only: bool,
    **place: Any,
) -> DualEncoder:
    """Build the model of an architecture, or the one of a saved folder, as it is."""
    options = checked_options(options)
    found = locate_model(source, local_files_only=local_files_only)
    if pretrained is not None and (is_folder(found) or found is not source):
        raise InputError(f"{source} is a saved model with weights of its own; leave out pretrained={pretrained!r}")
    if is_folder(found):
        model = build_folder(Path(found), overrides, **place, options=options)
        if not overrides:
            check_folder(model, Path(found))
        return model
    config, path, options = _with_weights(found, pretrained, overrides, options, local_files_only)
    if path is None and options != LoadOptions():
        raise InputError("weights=, resize= and logit_bias= say how weights are loaded, but pretrained= names none")
    model = assemble(config, weights=path, **place, options=options, overrides=overrides)
    if path is not None and pretrained is None and (not overrides or _has_stated_tokenizer(config, path)):
        read_stated_tokenizer(model.tokenizer, path)
    return model


def _has_stated_tokenizer(config: ModelConfig, folder: Path) -> bool:
    """Tell whether the tokenizer is still the one of a folder of another library, for all that was changed."""
    return load_config(stated(folder) or {}).tokenizer.files_key() == config.tokenizer.files_key()


def _with_weights(
    source: Any, pretrained: str | Path | None, overrides: Sequence[str], options: LoadOptions, local_files_only: bool
) -> tuple[ModelConfig, Path | None, LoadOptions]:
    """Return the architecture as its weights were trained, with what the caller changes, and their file."""
    if pretrained is None:
        architecture = stated(source)
        if architecture is None:
            return load_config(source, overrides), None, options
        config = config_of_folder(architecture, source, overrides)
        return config, Path(source), allow_resampling(options, load_config(architecture), config)
    entry = resolve_tag(source, pretrained)
    own = [] if entry is None else entry.overrides()
    config = load_config(source, [*own, *overrides])
    if entry is None:
        path = Path(pretrained)
    else:
        path = weights_of(entry, config, str(pretrained), local_files_only=local_files_only)
        options = replace(options, described=True)
    return config, path, allow_resampling(options, load_config(source, own), config) if overrides else options


@checked
def tokenizer(source: str | Path | Any, *, local_files_only: bool = False) -> Tokenizer:
    """Return the tokenizer of a model, or of an architecture or a saved model given as in `build`."""
    own = getattr(source, "tokenizer", None)
    if isinstance(own, Tokenizer):
        return own
    located = locate_model(source, local_files_only=local_files_only)
    found = tokenizer_of(_config_of(located))
    if is_folder(located):
        read_tokenizer(found, Path(located))
    elif stated(located) is not None:
        read_stated_tokenizer(found, Path(located))
    return found


@checked
def preprocess(source: str | Path | Any, train: bool = False, *, local_files_only: bool = False) -> Preprocessor:
    """Return what turns a picture into a tensor for a model, an architecture or a saved model given as in `build`.

    Args:
        source: a model, an architecture, or a saved model.
        train: with the random augmentation of training instead of the fixed path of evaluation.
        local_files_only: that of `build`.
    """
    return preprocessor_of(_config_of(source, local_files_only), train)


@checked
def loss(name: str, **options: Any) -> Loss:
    """Return a loss by name, such as `zoo.loss("contrastive")`.

    Raises:
        ConfigError: unknown loss or option; the nearest name is offered.
    """
    declared = {one.spec.name for one in registry().components("loss")}
    other = LOSSES.get(squash(name).removesuffix("loss")) if isinstance(cast("object", name), str) else None
    if other and name not in declared:
        message = f"'{name}' is written zoo.loss('{other}') here"
        raise ConfigError(Problem(message, "type", source="loss"))
    config = Section(LossConfig).parse({"type": name, **options}, "loss", registry())
    return cast("Loss", registry().get("loss", config.component).build(config))


def _config_of(source: Any, local_files_only: bool = False) -> ModelConfig:
    if isinstance(source, ComponentConfig | str | Path | Mapping):
        return config_of(source, local_files_only=local_files_only)
    config = getattr(source, "config", None)
    if not isinstance(config, ModelConfig):
        raise InputError(
            f"expected an architecture or a model that zoo.build made, found {type(source).__name__} without a config"
        )
    return config
