"""From a name to a model that knows its tokenizer and its preprocessing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from zoo.catalog import config as load_config
from zoo.catalog import registry
from zoo_core.config import ComponentConfig, LossConfig, ModelConfig, Section
from zoo_core.errors import ConfigError, InputError, PluginError, Problem

if TYPE_CHECKING:
    import torch

    from zoo_core.dual_encoder import DualEncoder
    from zoo_core.images import Preprocessor
    from zoo_core.interfaces import Loss
    from zoo_core.tokenizer import Tokenizer

__all__ = ["assemble", "build", "loss", "preprocess", "skeleton", "tokenizer"]

TOWERS = ("image", "text")


def build(
    source: str | Path | Mapping[str, Any] | ModelConfig,
    *,
    pretrained: str | Path | None = None,
    overrides: Sequence[str] = (),
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    towers: Sequence[str] | None = None,
    local_files_only: bool = False,
) -> DualEncoder:
    """Build a model, ready for inference.

    Args:
        source: the name of an architecture in any spelling (`"vit-b16"`, `"ViT-B/16"`), a YAML file, a mapping, a
            config, a folder that `zoo.save` wrote, or `"hf-hub:organisation/name[@revision]"`, which holds one.
        pretrained: a tag of this architecture (see `zoo info`), which brings the preprocessing of its training and is
            downloaded where it has to be, or a safetensors file; None draws random weights (from torch's global
            generator), but for a saved folder, which brings its own.
        overrides: `"key.path=value"` changes of the architecture.
        device: where the model lives; the CPU where None.
        dtype: of every floating-point parameter; that of the weights, or float32, where None.
        towers: `("image",)` or `("text",)` builds and reads one tower only; both where None.
        local_files_only: take what comes from the Hub from its local cache, as with `HF_HUB_OFFLINE=1`.

    Returns:
        the model in evaluation mode, with `config`, `tokenizer` and `preprocess`.

    Raises:
        ConfigError: the architecture is wrong; every problem is named with its file, line and key.
        UnknownNameError: no such architecture or tag; the nearest one is named.
        CheckpointError: the weights do not fit the architecture.
        DownloadError: a file of the Hub cannot be had, or has other bytes than it should.
        InputError: another argument is wrong.
    """
    from zoo.folders import build_folder, check_folder
    from zoo.sources import local_folder

    folder = local_folder(source, local_files_only=local_files_only)
    if folder is not None:
        if pretrained is not None:
            raise InputError(f"{source} is a saved model with weights of its own; leave out pretrained={pretrained!r}")
        model = build_folder(folder, overrides, device=device, dtype=dtype, towers=towers)
        if not overrides:
            check_folder(model, folder)
        return model
    if pretrained is None:
        config, weights = load_config(source, overrides), None
    else:
        config, weights = _with_weights(source, pretrained, overrides, local_files_only)
    return assemble(config, weights=weights, device=device, dtype=dtype, towers=towers)


def _with_weights(
    source: Any, pretrained: str | Path, overrides: Sequence[str], local_files_only: bool
) -> tuple[ModelConfig, Path]:
    """Return the architecture as its weights were trained, and their file."""
    from zoo.weights import find_entry, weights_of

    entry = find_entry(source, pretrained)
    if entry is None:
        return load_config(source, overrides), Path(pretrained)
    config = load_config(source, [*entry.overrides(), *overrides])
    return config, weights_of(entry, config, str(pretrained), local_files_only=local_files_only)


def assemble(
    config: ModelConfig,
    *,
    weights: Path | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    towers: Sequence[str] | None = None,
) -> DualEncoder:
    """Build the model of a config, with the weights of a safetensors file or with random ones."""
    from zoo.weights import load_weights

    wanted = _checked_towers(towers)
    _check_dtype(dtype)
    target = _checked_device(device)
    if weights is None:
        if config.parameter_count() is None:  # a tower cannot tell before it is built; on the meta device that is free
            skeleton(config, wanted)
        with target:
            model = _construct(config, wanted)
    else:
        model = skeleton(config, wanted)
        load_weights(model, weights, target)
        if _left_on_meta(model):  # a part computes buffers that no file holds: build it for real, then load
            with target:
                model = _construct(config, wanted)
            load_weights(model, weights, target)
    model = model.to(dtype=dtype).eval()
    model.config = config
    model.tokenizer = _tokenizer(config)
    model.preprocess = preprocess(config)
    return model


def skeleton(config: ModelConfig, towers: tuple[str, ...] = TOWERS) -> DualEncoder:
    """Build the model on the meta device, without its memory, and hold its size to what the architecture allows.

    Raises:
        ConfigError: it has more than `max_parameters`.
    """
    import torch

    with torch.device("meta"):
        model = _construct(config, towers)
    count = sum(parameter.numel() for parameter in model.parameters())
    if count > config.max_parameters:
        raise ConfigError(Problem(config.excess(count), "max_parameters"))
    return model


def tokenizer(source: Any, *, local_files_only: bool = False) -> Tokenizer:
    """Return the tokenizer of a model, or of an architecture or a saved model given as in `build`."""
    from zoo.folders import open_folder
    from zoo.sources import local_folder
    from zoo.tokenizer_files import read_tokenizer
    from zoo_core.tokenizer import Tokenizer

    folder = local_folder(source, local_files_only=local_files_only)
    if folder is not None:
        found = _tokenizer(open_folder(folder)[0])
        read_tokenizer(found, folder)
        return found
    own = getattr(source, "tokenizer", None)
    return own if isinstance(own, Tokenizer) else _tokenizer(_config_of(source))


def _tokenizer(config: ModelConfig) -> Tokenizer:
    component = registry().get("tokenizer", config.tokenizer.component)
    return cast("Tokenizer", component.build(config.tokenizer, context_length=config.text.context_length))


def preprocess(source: Any, train: bool = False, *, local_files_only: bool = False) -> Preprocessor:
    """Return what turns a picture into a tensor for a model, an architecture or a saved model given as in `build`.

    Args:
        source: a model, an architecture, or a saved model.
        train: with the random augmentation of training instead of the fixed path of evaluation.
        local_files_only: that of `build`.
    """
    from zoo.folders import open_folder
    from zoo.sources import local_folder

    folder = local_folder(source, local_files_only=local_files_only)
    config = _config_of(source) if folder is None else open_folder(folder)[0]
    component = registry().get("preprocessor", config.preprocess.component)
    return cast("Preprocessor", component.build(config.preprocess, image_size=config.vision.image_size, train=train))


def loss(name: str, **options: Any) -> Loss:
    """Return a loss by name, such as `zoo.loss("contrastive")`.

    Raises:
        ConfigError: unknown loss or option; the nearest name is offered.
    """
    config = Section(LossConfig).parse({"type": name, **options}, "loss", registry())
    return cast("Loss", registry().get("loss", config.component).build(config))


def _construct(config: ModelConfig, towers: tuple[str, ...]) -> DualEncoder:
    from zoo_core.dual_encoder import DualEncoder

    component = registry().get("model", config.component)
    model = component.build(config, towers=towers, registry=registry())
    if not isinstance(model, DualEncoder):
        raise PluginError(f"{component}: its factory must return a DualEncoder, found {type(model).__name__}")
    return model


def _config_of(source: Any) -> ModelConfig:
    if isinstance(source, ComponentConfig | str | Path | Mapping):
        return load_config(cast("Any", source))
    config = getattr(source, "config", None)
    if not isinstance(config, ModelConfig):
        raise InputError(
            f"expected an architecture or a model that zoo.build made, found {type(source).__name__} without a config"
        )
    return config


def _checked_towers(towers: Sequence[str] | None) -> tuple[str, ...]:
    if towers is None:
        return TOWERS
    if isinstance(towers, str) or not towers or any(tower not in TOWERS for tower in towers):
        raise InputError(f"towers must hold 'image', 'text' or both, found {towers!r}")
    return tuple(dict.fromkeys(towers))


def _check_dtype(dtype: object) -> None:
    import torch

    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise InputError(f"dtype must be a floating-point torch.dtype such as torch.bfloat16, found {dtype!r}")


def _checked_device(device: str | torch.device | None) -> torch.device:
    import torch

    try:
        return torch.device("cpu" if device is None else device)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"device {device!r} is none: {str(error).splitlines()[0]}") from None


def _left_on_meta(model: DualEncoder) -> bool:
    return any(tensor.is_meta for tensors in (model.parameters(), model.buffers()) for tensor in tensors)
