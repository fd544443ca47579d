"""From a name to a model that knows its tokenizer and its preprocessing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from zoo.catalog.architectures import config as load_config
from zoo.catalog.architectures import config_of_folder, registry
from zoo_core.boundary import checked
from zoo_core.config import ComponentConfig, LossConfig, ModelConfig, Section
from zoo_core.errors import ConfigError, InputError, PluginError, Problem, describe, one_of, reason
from zoo_core.registry import squash

if TYPE_CHECKING:
    import torch

    from zoo.checkpoints.match import LoadOptions
    from zoo_core.images import Preprocessor
    from zoo_core.interfaces import Loss
    from zoo_core.models.dual_encoder import BuiltModel, DualEncoder
    from zoo_core.nn.position_embedding import Resampling
    from zoo_core.text.tokenizer import Tokenizer

__all__ = ["assemble", "build", "loss", "preprocess", "sized", "skeleton", "tokenizer"]

TOWERS = ("image", "text")
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
    from zoo.checkpoints.match import LoadOptions

    options = LoadOptions(weights, resize, logit_bias)
    place = {"device": device, "dtype": dtype, "towers": towers}
    model = _built(source, pretrained, overrides, options, local_files_only, **place)
    if optimize:
        from zoo.inference.autotune import optimize_for_inference

        optimize_for_inference(model)
    else:
        from zoo_core.nn.processors import tell_if_slow

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
    from zoo.building.source import locate_model
    from zoo.checkpoints.load import checked_options
    from zoo.checkpoints.match import LoadOptions
    from zoo.saved.read import build_folder, check_folder, is_folder
    from zoo.saved.tokenizer_files import read_stated_tokenizer

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
    from zoo.building.source import stated

    return load_config(stated(folder) or {}).tokenizer.files_key() == config.tokenizer.files_key()


def _with_weights(
    source: Any, pretrained: str | Path | None, overrides: Sequence[str], options: LoadOptions, local_files_only: bool
) -> tuple[ModelConfig, Path | None, LoadOptions]:
    """Return the architecture as its weights were trained, with what the caller changes, and their file."""
    from zoo.building.pretrained import resolve_tag, weights_of
    from zoo.building.source import stated

    if pretrained is None:
        architecture = stated(source)
        if architecture is None:
            return load_config(source, overrides), None, options
        config = config_of_folder(architecture, source, overrides)
        return config, Path(source), sized(options, load_config(architecture), config)
    entry = resolve_tag(source, pretrained)
    own = [] if entry is None else entry.overrides()
    config = load_config(source, [*own, *overrides])
    if entry is None:
        path = Path(pretrained)
    else:
        path = weights_of(entry, config, str(pretrained), local_files_only=local_files_only)
        options = replace(options, described=True)
    return config, path, sized(options, load_config(source, own), config) if overrides else options


def sized(options: LoadOptions, trained: ModelConfig, wanted: ModelConfig) -> LoadOptions:
    """Return options that let positions be resampled, where another size is wanted than weights were trained for."""
    size = trained.vision.image_size
    if (size, trained.text.context_length) == (wanted.vision.image_size, wanted.text.context_length):
        return options
    return replace(options, resize=options.resize or "bicubic", trained_size=size)


def assemble(
    config: ModelConfig,
    *,
    weights: Path | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    towers: Sequence[str] | None = None,
    options: LoadOptions | None = None,
    overrides: Sequence[str] = (),
) -> DualEncoder:
    """Build the model of a config, with the weights of a checkpoint or with random ones.

    `overrides` are those changes of the config that the caller asked for, which weights need not agree with.
    """
    wanted = _checked_towers(towers)
    _check_dtype(dtype)
    target = _checked_device(device)
    if weights is not None and target.type == "meta":
        raise InputError("device 'meta' holds no values, so no weights go there; build the architecture alone on it")
    if weights is None:
        if config.parameter_count() is None:  # a tower cannot tell before it is built; on the meta device that is free
            skeleton(config, wanted)
        with target:
            model = _construct(config, wanted).to(dtype=dtype)
    else:
        from zoo.checkpoints.load import take_weights

        model = skeleton(config, wanted)
        take_weights(model, weights, config=config, device=target, dtype=dtype, options=options, overrides=overrides)
        _fill_buffers(model, config, wanted, target)
        model = model.to(dtype=dtype)
    model = model.eval()
    model.config = config
    model.tokenizer = _tokenizer(config)
    model.preprocess = preprocess(config)
    _show_preprocessing(model, config)
    return model


def _show_preprocessing(model: DualEncoder, config: ModelConfig) -> None:
    """Show on the image tower what pictures go through, where code for open_clip looks for it."""
    found = config.preprocess.model_dump()
    if model.visual is None or not {"mean", "std"} <= found.keys():
        return
    names = {"mean": "mean", "std": "std", "interpolation": "interpolation", "resize_mode": "resize_mode"}
    shown: dict[str, Any] = {"size": config.vision.image_size, "mode": "RGB"}
    shown |= {name: found[key] for name, key in (names | {"fill_color": "fill"}).items() if key in found}
    tower: Any = model.visual
    tower.image_mean, tower.image_std, tower.preprocess_cfg = found["mean"], found["std"], shown


def skeleton(config: ModelConfig, towers: tuple[str, ...] = TOWERS) -> DualEncoder:
    """Build the model on the meta device, without its memory, and hold its size to what the architecture allows.

    Raises:
        ConfigError: it has more than `max_parameters`.
    """
    import torch

    from zoo.materialize.meta_init import SkipInit

    with torch.device("meta"), SkipInit():
        model = _construct(config, towers)
    count = sum(parameter.numel() for parameter in model.parameters())
    if count > config.max_parameters:
        raise ConfigError(Problem(config.excess(count), "max_parameters"))
    model.config = config
    return model


@checked
def tokenizer(source: str | Path | Any, *, local_files_only: bool = False) -> Tokenizer:
    """Return the tokenizer of a model, or of an architecture or a saved model given as in `build`."""
    from zoo.building.source import locate_model, stated
    from zoo.saved.read import is_folder
    from zoo.saved.tokenizer_files import read_stated_tokenizer, read_tokenizer
    from zoo_core.text.tokenizer import Tokenizer

    own = getattr(source, "tokenizer", None)
    if isinstance(own, Tokenizer):
        return own
    located = locate_model(source, local_files_only=local_files_only)
    found = _tokenizer(_config_of(located))
    if is_folder(located):
        read_tokenizer(found, Path(located))
    elif stated(located) is not None:
        read_stated_tokenizer(found, Path(located))
    return found


def _tokenizer(config: ModelConfig) -> Tokenizer:
    component = registry().get("tokenizer", config.tokenizer.component)
    return cast("Tokenizer", component.build(config.tokenizer, context_length=config.text.context_length))


@checked
def preprocess(source: str | Path | Any, train: bool = False, *, local_files_only: bool = False) -> Preprocessor:
    """Return what turns a picture into a tensor for a model, an architecture or a saved model given as in `build`.

    Args:
        source: a model, an architecture, or a saved model.
        train: with the random augmentation of training instead of the fixed path of evaluation.
        local_files_only: that of `build`.
    """
    config = _config_of(source, local_files_only)
    component = registry().get("preprocessor", config.preprocess.component)
    return cast("Preprocessor", component.build(config.preprocess, image_size=config.vision.image_size, train=train))


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


def _construct(config: ModelConfig, towers: tuple[str, ...]) -> DualEncoder:
    component = registry().get("model", config.component)
    return cast("DualEncoder", component.build(config, towers=towers, registry=registry()))


def _config_of(source: Any, local_files_only: bool = False) -> ModelConfig:
    if isinstance(source, ComponentConfig | str | Path | Mapping):
        from zoo.building.source import config_of

        return config_of(source, local_files_only=local_files_only)
    config = getattr(source, "config", None)
    if not isinstance(config, ModelConfig):
        raise InputError(
            f"expected an architecture or a model that zoo.build made, found {type(source).__name__} without a config"
        )
    return config


def _checked_towers(towers: Sequence[str] | None) -> tuple[str, ...]:
    if towers is None:
        return TOWERS
    given = cast("object", towers)
    known = list(cast("Iterable[object]", given)) if isinstance(given, Iterable) and not isinstance(given, str) else []
    if not known or not all(isinstance(tower, str) and tower in TOWERS for tower in known):
        raise InputError(f"towers must hold 'image', 'text' or both, found {describe(towers)}")
    return tuple(dict.fromkeys(cast("list[str]", known)))


def _check_dtype(dtype: object) -> None:
    import torch

    known = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype in known):
        raise InputError(
            "dtype must be a floating-point torch.dtype of 16 bits or more, such as torch.bfloat16, "
            f"found {describe(dtype)}"
        )


def _checked_device(device: str | torch.device | None) -> torch.device:
    import torch

    try:
        found = torch.device("cpu" if device is None else device)
    except (RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"device {describe(device)} is none: {reason(error, 100)}") from None
    try:
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:  # torch has no one error for what it was not built for
        told = str(error).splitlines()[0].partition(". ")[0].rstrip(".")
        raise InputError(f"device {describe(device)} cannot be used here: {told}; {one_of(_devices())}") from None
    return found


def _devices() -> list[str]:
    """Return the names of the devices of this machine."""
    import torch

    kind = torch.accelerator.current_accelerator()
    return ["cpu", *(f"{kind}:{index}" for index in range(torch.accelerator.device_count()))]


def _fill_buffers(model: DualEncoder, config: ModelConfig, towers: tuple[str, ...], device: torch.device) -> None:
    """Give a model the buffers that no file holds, as its towers compute them; nothing else of them is built."""
    from zoo_core.models.construction import parameters_on_meta

    empty = _on_meta(model)
    if not empty:
        return
    sides = {"visual": "image", "text": "text"}
    needed = {sides.get(name.partition(".")[0]) for name in empty}
    with device, parameters_on_meta():
        computed = _construct(config, tuple(one for one in towers if one in needed) if None not in needed else towers)
    for name in empty:
        owner, _, own = name.rpartition(".")
        setattr(model.get_submodule(owner), own, getattr(computed.get_submodule(owner), own))
    empty = _on_meta(model)
    if empty:
        raise PluginError(f"{config.component}: {', '.join(empty)} have no value, neither computed nor loaded")


def _on_meta(model: DualEncoder) -> list[str]:
    """Return the names of parameters and buffers, and of tensors that are attributes, that have no memory."""
    import torch

    found = [name for name, one in (*model.named_parameters(), *model.named_buffers()) if one.is_meta]
    for prefix, module in cast("Iterable[tuple[str, torch.nn.Module]]", model.named_modules()):
        own = ((name, one) for name, one in vars(module).items() if isinstance(one, torch.Tensor))
        found += [f"{prefix}.{name}".lstrip(".") for name, one in own if one.is_meta]
    return found
