"""State of training as tensors and numbers by name.

Names are those of the model's own parameters, and shapes those of whole tensors. So what two processes wrote, one or
four read. Numbers that are no tensors go into the record of a checkpoint as JSON, so that no pickle has to be read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer

from zoo.training.gradients.wrapped_model import drop_gathered
from zoo_core.errors import CheckpointError, ConfigError, Problem
from zoo_core.nn.state_dict import is_sharded, own_state_dict

if TYPE_CHECKING:
    from zoo_core.models.dual_encoder import DualEncoder

__all__ = ["TrainingState"]

OF_GROUPS = {"params", "names", "lr", "initial_lr", "weight_decay", "tower", "group"}
"""Keys of parameter groups that the recipe gives, and that are not saved."""
Number = int | float | bool | None


def _is_saved(value: object) -> bool:
    return isinstance(value, int | float) or (isinstance(value, Tensor) and value.dim() == 0)


def _plain(value: Any) -> Any:
    """Return what an optimizer keeps for a group, ready for JSON: some count steps in a tensor."""
    return (
        {"dtype": str(value.dtype).removeprefix("torch."), "value": value.item()}
        if isinstance(value, Tensor)
        else value
    )


def _restored(value: Any) -> Any:
    if isinstance(value, Mapping):
        entry = cast("Mapping[str, Any]", value)
        return torch.tensor(entry["value"], dtype=getattr(torch, entry["dtype"]))
    return value


@dataclass(frozen=True)
class TrainingState:
    """What a run consists of at one step, apart from its recipe.

    Attributes:
        model: the model itself, with parameters whole or sharded.
        optimizer: its optimizer, over groups that name their parameters.
        average: the averaged weights by the model's own names, if there are any.
    """

    model: DualEncoder
    optimizer: Optimizer
    average: Mapping[str, Tensor] | None = None

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor; they share memory with the model and the optimizer.

        All processes call this together: buffers become those of the first one in all. Statistics of batch norms
        differ between processes of FSDP2, and had each gone on with its own, no checkpoint could bring them back.
        """
        drop_gathered(self.model)
        if dist.is_initialized() and dist.get_world_size() > 1:
            for name, buffer in self.model.named_buffers():
                dist.broadcast(buffer, src=0)
                if self.average is not None and name in self.average:
                    dist.broadcast(self.average[name], src=0)
        tensors = {f"model.{name}": tensor for name, tensor in own_state_dict(self.model).items()}
        tensors |= {f"average.{name}": tensor for name, tensor in (self.average or {}).items()}
        for name, key, value in self._optimizer_entries():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{name}.{key}"] = value
        return tensors

    def numbers(self) -> dict[str, Any]:
        """Return what the optimizer holds beside tensors, ready for JSON.

        Raises:
            ConfigError: it holds something else than tensors and numbers.
        """
        of_parameters: dict[str, dict[str, Number]] = {}
        for name, key, value in self._optimizer_entries():
            if not isinstance(value, Tensor):
                if not (value is None or isinstance(value, int | float)):
                    kind = type(self.optimizer).__name__
                    what = (
                        f"{kind} keeps '{key}' as {type(value).__name__}, which no checkpoint can hold; choose another"
                    )
                    raise ConfigError(Problem(what, "optimizer"))
                of_parameters.setdefault(name, {})[key] = value
        of_groups = [
            {key: _plain(value) for key, value in group.items() if key not in OF_GROUPS and _is_saved(value)}
            for group in self.optimizer.param_groups
        ]
        return {"parameters": of_parameters, "groups": of_groups}

    def prepare(self, shapes: Mapping[str, tuple[tuple[int, ...], torch.dtype]], numbers: Mapping[str, Any]) -> None:
        """Give the optimizer the tensors and numbers that a checkpoint has, so that it can be read into them.

        Args:
            shapes: shape and dtype of each tensor of the checkpoint, by name.
            numbers: what `numbers` returned.

        Raises:
            CheckpointError: it is of parameters that this optimizer has not.
        """
        places = dict(self._parameters())
        for entry, (shape, dtype) in shapes.items():
            if not entry.startswith("optimizer."):
                continue
            name, _, key = entry.removeprefix("optimizer.").rpartition(".")
            parameter = self._parameter(places, name)
            self.optimizer.state[parameter][key] = self._room(parameter, shape, dtype)
        for name, values in cast("Mapping[str, dict[str, Number]]", numbers["parameters"]).items():
            self.optimizer.state[self._parameter(places, name)].update(values)
        for group, values in zip(self.optimizer.param_groups, numbers["groups"], strict=False):
            group.update({key: _restored(value) for key, value in values.items()})

    def _room(self, parameter: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return a tensor for what a checkpoint has of a parameter, sharded as that is, or whole in each process."""
        if shape == tuple(parameter.shape):
            return torch.zeros_like(parameter, dtype=dtype, requires_grad=False)
        is_counter = not shape and not self._counts_on_device
        value = torch.zeros(shape, dtype=dtype, device="cpu" if is_counter else parameter.device)
        if not shape or not is_sharded(parameter):
            return value
        from torch.distributed.tensor import DTensor, Replicate, distribute_tensor

        assert isinstance(parameter, DTensor)  # for the types
        return distribute_tensor(value, parameter.device_mesh, [Replicate()] * parameter.device_mesh.ndim)

    @property
    def _counts_on_device(self) -> bool:
        """Whether the optimizer's counters are where the parameters are, as those of one kernel for all are."""
        return any(group.get("fused") or group.get("capturable") for group in self.optimizer.param_groups)

    def _parameter(self, places: Mapping[str, Tensor], name: str) -> Any:
        if name not in places:
            raise CheckpointError(f"holds the optimizer's state of '{name}', which this run does not train")
        return places[name]

    def _parameters(self) -> Iterator[tuple[str, Any]]:
        for group in self.optimizer.param_groups:
            yield from zip(group["names"], group["params"], strict=True)

    def _optimizer_entries(self) -> Iterator[tuple[str, str, Any]]:
        """Yield name, key and value of what the optimizer holds for each parameter."""
        for name, parameter in self._parameters():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                yield name, key, value
