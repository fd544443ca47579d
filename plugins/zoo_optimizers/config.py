"""Configs of the optimizers; learning rate, weight decay and what divides parameters are those of all."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from zoo_core.config import OptimizerConfig

Beta = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]


def _as_tuple(value: Any) -> Any:
    """Take a list, which is what YAML gives, for a tuple."""
    return tuple(value) if isinstance(value, list) else value


Betas = Annotated[tuple[Beta, Beta], BeforeValidator(_as_tuple)]
Scalar = bool | int | float | str

_OF_ALL = {
    "lr": "optimizer.lr sets it",
    "weight_decay": "optimizer.weight_decay sets it",
    "opt": "optimizer.name sets it",
    "model_or_params": "parameters are those of the model",
    "filter_bias_and_bn": "biases and norms are not decayed",
    "layer_decay": "optimizer.layer_decay sets it",
    "param_group_fn": "groups are made by the recipe",
}
"""Options of timm that have a key of their own, and which."""


class AdamConfig(OptimizerConfig):
    """Options of Adam's moments."""

    betas: Betas = (0.9, 0.98)
    """Decay of the means of the gradient and of its square."""
    eps: Positive = 1e-6
    """What is added to the root of the second moment."""


class AdamWConfig(AdamConfig):
    """AdamW (Loshchilov and Hutter 2019), with the moments of CLIP."""

    type: str = "adamw"
    fused: bool | Literal["auto"] = "auto"
    """Whether one kernel updates all parameters; `auto` does where torch has one, which is faster on a CPU too."""


class SgdConfig(OptimizerConfig):
    """Stochastic gradient descent."""

    type: str = "sgd"
    momentum: Beta = 0.9
    """Decay of the sum of gradients."""
    nesterov: bool = False
    """Whether the step looks ahead along the momentum."""
    fused: bool | Literal["auto"] = "auto"
    """As of AdamW."""

    def rules(self) -> Iterator[tuple[str, str]]:
        """Refuse to look ahead along no momentum."""
        yield from super().rules()
        if self.nesterov and not self.momentum:
            yield "nesterov", "needs a momentum above 0"


class MuonConfig(AdamConfig):
    """Muon (Jordan et al. 2024) for matrices; `betas` and `eps` are those of AdamW for all other parameters."""

    type: str = "muon"
    momentum: Beta = 0.95
    """Decay of the sum of gradients that is orthogonalised."""
    nesterov: bool = True
    """Whether the step looks ahead along the momentum."""
    steps: Annotated[int, Field(ge=1, le=20)] = 5
    """Iterations of Newton and Schulz."""
    adjust_lr: Literal["match_rms_adamw", "original"] = "match_rms_adamw"
    """How a matrix's learning rate follows its shape: to the size of AdamW's updates, so that one learning rate suits
    both (Liu et al. 2025), or as first published."""
    adamw: list[str] = ["*embed*", "*patch*", "*query*", "*queries*", "*probe*", "*latent*", "*logit*", "*bias*"]
    """Patterns of names of matrices that AdamW updates all the same: tables, not maps between features."""


class ScheduleFreeConfig(AdamConfig):
    """Schedule-free AdamW (Defazio et al. 2024); take `schedule.type: constant` with a warm-up."""

    type: str = "adamw-schedulefree"
    lr: Positive = 2.5e-3
    """Learning rate after the warm-up; its authors take 1 to 10 times that of AdamW."""


class TimmOptimizerConfig(OptimizerConfig):
    """An optimizer of timm."""

    other_names: ClassVar[Mapping[str, str]] = {"opt": "name", "opt_kwargs": "kwargs"}
    type: str = "timm"
    name: Annotated[str, Field(min_length=1, max_length=100)]
    """Its name in timm, such as lamb."""
    kwargs: dict[str, Scalar | list[float]] = {}
    """Further options of it, such as betas."""

    def rules(self) -> Iterator[tuple[str, str]]:
        """Refuse options that have a key of their own."""
        yield from super().rules()
        for name in _OF_ALL.keys() & self.kwargs.keys():
            yield f"kwargs.{name}", f"cannot be set here: {_OF_ALL[name]}"
