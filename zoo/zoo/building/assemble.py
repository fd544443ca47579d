"""Assembly of a config and weights to a module on a device."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from zoo.catalog.architectures import registry
from zoo.checkpoints.load import take_weights
from zoo.materialize.skeleton import construct, skeleton
from zoo_core.config import ModelConfig
from zoo_core.errors import InputError, PluginError, describe, one_of, reason
from zoo_core.models.build_tower import parameters_on_meta

if TYPE_CHECKING:
    from zoo.checkpoints.match import LoadOptions
    from zoo_core.models.dual_encoder import DualEncoder

__all__ = ["assemble", "processor_of"]


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
    modalities = _checked_towers(towers, config)
    _check_dtype(dtype)
    target = _checked_device(device)
    if weights is not None and target.type == "meta":
        raise InputError("device 'meta' holds no values, so no weights go there; build the architecture alone on it")
    if weights is None:
        if config.parameter_count() is None:  # a tower cannot tell before it is built; on the meta device that is free
            skeleton(config, modalities)
        with target:
            model = construct(config, modalities).to(dtype=dtype)
    else:
        model = skeleton(config, modalities)
        take_weights(model, weights, config=config, device=target, dtype=dtype, options=options, overrides=overrides)
        _fill_buffers(model, config, modalities, target)
        model = model.to(dtype=dtype)
    model = model.eval()
    model.config = config
    for name, modality in model.modalities.items():
        setattr(model, modality.spec.processor, processor_of(config, name))
    _show_preprocessing(model, config)
    return model


def _show_preprocessing(model: DualEncoder, config: ModelConfig) -> None:
    """Show on the image tower what images go through, where code for open_clip looks for it."""
    options = {} if model.visual is None else config.preprocess.model_dump()
    if not {"mean", "std"} <= options.keys():
        return
    names = {"mean": "mean", "std": "std", "interpolation": "interpolation", "resize_mode": "resize_mode"}
    shown: dict[str, Any] = {"size": config.vision.image_size, "mode": "RGB"}
    shown |= {name: options[key] for name, key in (names | {"fill_color": "fill"}).items() if key in options}
    tower: Any = model.visual
    tower.image_mean, tower.image_std, tower.preprocess_cfg = options["mean"], options["std"], shown


def processor_of(config: ModelConfig, modality: str, train: bool = False) -> Any:
    """Return what makes batches of the raw inputs of a modality: the tokenizer of text, the preprocessing of images.

    Raises:
        InputError: the architecture has no such modality.
    """
    if modality not in config.processors:
        raise InputError(f"this architecture has no modality '{modality}'; {one_of(config.towers)}")
    section = config.processors[modality]
    component = registry().get(section.kind, section.component)
    return component.build(section, **config.towers[modality].processor_options(train))


def _checked_towers(towers: Sequence[str] | None, config: ModelConfig) -> tuple[str, ...]:
    if towers is None:
        return tuple(config.towers)
    value = cast("object", towers)
    names = list(cast("Iterable[object]", value)) if isinstance(value, Iterable) and not isinstance(value, str) else []
    if not names or not all(isinstance(name, str) and name in config.towers for name in names):
        allowed = [f"'{name}'" for name in config.towers]
        every = "both" if len(allowed) == 2 else "all"
        raise InputError(f"towers must hold {', '.join(allowed)} or {every}, found {describe(towers)}")
    return tuple(dict.fromkeys(cast("list[str]", names)))


def _check_dtype(dtype: object) -> None:
    allowed = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype in allowed):
        raise InputError(
            "dtype must be a floating-point torch.dtype of 16 bits or more, such as torch.bfloat16, "
            f"found {describe(dtype)}"
        )


def _checked_device(device: str | torch.device | None) -> torch.device:
    try:
        target = torch.device("cpu" if device is None else device)
    except (RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"device {describe(device)} is none: {reason(error, 100)}") from None
    try:
        torch.empty(0, device=target)
    except (RuntimeError, AssertionError) as error:  # torch has no one error for what it was not built for
        cause = str(error).splitlines()[0].partition(". ")[0].rstrip(".")
        kind = torch.accelerator.current_accelerator()
        devices = ["cpu", *(f"{kind}:{index}" for index in range(torch.accelerator.device_count()))]
        raise InputError(f"device {describe(device)} cannot be used here: {cause}; {one_of(devices)}") from None
    return target


def _fill_buffers(model: DualEncoder, config: ModelConfig, towers: tuple[str, ...], device: torch.device) -> None:
    """Give a model the buffers that no file holds, as its towers compute them; nothing else of them is built."""
    empty = _on_meta(model)
    if not empty:
        return
    # buffers outside the towers need all of the model
    needed = tuple(name for name, prefix in model.prefixes.items() if any(key.startswith(prefix) for key in empty))
    is_of_towers = all(key.startswith(tuple(model.prefixes.values())) for key in empty)
    with device, parameters_on_meta():
        computed = construct(config, needed if is_of_towers else towers)
    for name in empty:
        owner, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(owner), attribute, getattr(computed.get_submodule(owner), attribute))
    empty = _on_meta(model)
    if empty:
        raise PluginError(f"{config.component}: {', '.join(empty)} have no value, neither computed nor loaded")


def _on_meta(model: DualEncoder) -> list[str]:
    """Return the names of parameters and buffers, and of tensors that are attributes, that have no memory."""
    names = [name for name, value in (*model.named_parameters(), *model.named_buffers()) if value.is_meta]
    for prefix, module in cast("Iterable[tuple[str, torch.nn.Module]]", model.named_modules()):
        attributes = ((name, value) for name, value in vars(module).items() if isinstance(value, torch.Tensor))
        names += [f"{prefix}.{name}".lstrip(".") for name, value in attributes if value.is_meta]
    return names
