"""GradCache: the gradient of a whole batch at the memory of a chunk (Gao et al. 2021, https://arxiv.org/abs/2101.06983).

The features of all chunks are computed without a graph, and the loss of all of them gives the gradient of each feature.
Then each chunk goes through the model again, with the random numbers that it had, and takes its gradients further back.
The last pass holds a chunk of either modality together with the logit scale: it alone shares gradients among processes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from zoo.training.gradients.batch_loss import BatchLoss
from zoo.training.gradients.random_state import RandomState
from zoo.training.gradients.wrapped_model import WrappedModel
from zoo_core.errors import InputError, describe, one_of

__all__ = ["ChunkedStep", "chunk_sizes", "length"]

Rows = dict[str, slice]
"""Of each modality that takes part in a pass, which samples."""
SCALES = ("logit_scale", "logit_bias")


def chunk_sizes(chunk: int | Mapping[str, int] | None, inputs: Mapping[str, Any]) -> dict[str, int]:
    """Return how many samples of each modality a pass takes: all of them where nothing else is said.

    Raises:
        InputError: a number is below 1, a modality has no inputs, or there are not as many of one as of the other.
    """
    counts = {name: length(value) for name, value in inputs.items()}
    if len(set(counts.values())) > 1:
        given = " and ".join(f"{count} of {name}" for name, count in counts.items())
        raise InputError(f"expected as many samples of each modality, found {given}")
    sizes = chunk if isinstance(chunk, Mapping) else dict.fromkeys(inputs, chunk)
    for name, size in sizes.items():
        if name not in inputs:
            raise InputError(f"chunk: there are no inputs of {describe(name)}; {one_of(inputs)}")
        if size is not None and (type(size) is not int or size < 1):
            raise InputError(f"chunk: expected a number of samples of at least 1, found {describe(size)}")
    return {name: min(sizes.get(name) or count, count) for name, count in counts.items()}


@dataclass(frozen=True)
class ChunkedStep:
    """A step whose batch is too large for one pass.

    Attributes:
        wrapped: the model.
        batch_loss: the loss.
        inputs: the batch of each modality.
        sizes: samples of a chunk of each.
        precision: what matrix products are computed in.
        loss_scale: factor of the gradients.
    """

    wrapped: WrappedModel
    batch_loss: BatchLoss
    inputs: Mapping[str, Any]
    sizes: Mapping[str, int]
    precision: str
    loss_scale: float

    def backward(self) -> tuple[dict[str, Tensor], Tensor]:
        """Add the gradient of the loss to the gradients of the model; return the losses by name, and the logit scale.

        Raises:
            InputError: a batch norm is in training mode, or a loss of single samples has chunks of two sizes.
        """
        self._check()
        passes = list(self._passes())
        states, cache, mean_count = self._features(passes)
        losses = self.batch_loss.of_pairs(cache)
        leaves = {name: value for name, value in cache.items() if value.requires_grad}
        total = torch.stack(list(losses.values())).sum() * self.loss_scale
        gradients = dict(zip(leaves, _gradients(total, list(leaves.values())), strict=True))
        shares: dict[str, Tensor] = {}
        for number, (rows, state) in enumerate(zip(passes, states, strict=False)):
            is_last = number == len(passes) - 1
            if is_last or self._trains(rows):
                state.restore()
                for name, value in self._again(rows, gradients, mean_count, is_last).items():
                    shares[name] = shares[name] + value if name in shares else value
        states[-1].restore()
        losses = {name: value.detach() for name, value in losses.items()}
        return losses | {name: self.batch_loss.mean(value) for name, value in shares.items()}, cache[
            "logit_scale"
        ].detach()

    def _check(self) -> None:
        for name, module in cast("Iterable[tuple[str, nn.Module]]", self.wrapped.bare.named_modules()):
            if isinstance(module, _BatchNorm) and module.training:
                why = "a batch norm in training mode, and a chunk has other statistics than the batch"
                fix = "freeze it (freeze.batch_norm: frozen), or leave chunk out"
                raise InputError(f"chunk: '{name}' is {why}; {fix}")
        if self.batch_loss.scores_samples and len(set(self.sizes.values())) > 1:
            given = " and ".join(f"{size} of {name}" for name, size in self.sizes.items())
            loss = type(self.batch_loss.loss).__name__
            raise InputError(f"chunk: the loss {loss} reads both inputs of a sample at once, found chunks of {given}")

    def _passes(self) -> Iterator[Rows]:
        """Yield the samples of each pass: a chunk of one modality, and in the last pass the last chunk of either.

        A loss of single samples wants both inputs of a sample in every pass.
        """
        count = length(next(iter(self.inputs.values())))
        chunks = {
            name: [slice(start, min(start + size, count)) for start in range(0, count, size)]
            for name, size in self.sizes.items()
        }
        if self.batch_loss.scores_samples:
            yield from (dict(zip(chunks, together, strict=True)) for together in zip(*chunks.values(), strict=True))
            return
        for name in self.wrapped.pair:
            yield from ({name: rows} for rows in chunks[name][:-1])
        yield {name: chunks[name][-1] for name in self.wrapped.pair}

    @torch.no_grad()
    def _features(self, passes: Sequence[Rows]) -> tuple[list[RandomState], dict[str, Tensor], Tensor | None]:
        """Return the random states before and after all passes, what pairs are scored by, and the count of samples."""
        states = [RandomState.now(self.wrapped.device)]
        parts: dict[str, list[Tensor]] = {f"{name}_features": [] for name in self.wrapped.pair}
        counts: list[Tensor] = []
        outputs: dict[str, Any] = {}
        for rows in passes:
            outputs = self._forward(rows, local=True)
            states.append(RandomState.now(self.wrapped.device))
            for name in rows:
                parts[f"{name}_features"].append(outputs[f"{name}_features"])
            if self.batch_loss.scores_samples:
                counts.append(self.batch_loss.count(outputs))
        torch.clear_autocast_cache()  # older torch would take casts made without a graph
        cache = {name: torch.cat(features) for name, features in parts.items()}
        cache |= {name: outputs[name] for name in SCALES if outputs.get(name) is not None}
        mean_count = self.batch_loss.mean(torch.stack(counts).sum()) if counts else None
        return states, {name: value.detach().requires_grad_() for name, value in cache.items()}, mean_count

    def _again(
        self, rows: Rows, gradients: Mapping[str, Tensor | None], mean_count: Tensor | None, is_last: bool
    ) -> dict[str, Tensor]:
        """Take the gradients of some features back through the model; return what their samples add to the loss."""
        with self.wrapped.sharing_gradients(is_last):
            outputs = self._forward(rows, local=not is_last)
            shares = (
                {} if mean_count is None else self.batch_loss.of_samples(outputs, mean_count, next(iter(rows.values())))
            )
            terms = [share * self.loss_scale for share in shares.values()]
            for name, gradient in gradients.items():
                modality = name.removesuffix("_features")
                if gradient is not None and modality in rows:
                    terms.append((outputs[name].to(gradient.dtype) * gradient[rows[modality]]).sum())
                elif gradient is not None and name in SCALES and is_last:
                    terms.append((outputs[name] * gradient).sum())
            total = torch.stack(terms).sum()
            if total.requires_grad:
                total.backward()  # pyright: ignore[reportUnknownMemberType]
        return {name: share.detach() for name, share in shares.items()}

    def _forward(self, rows: Rows, *, local: bool) -> dict[str, Any]:
        inputs = {name: _cut(self.inputs[name], of_modality) for name, of_modality in rows.items()}
        return self.wrapped.forward(inputs, self.precision, local=local)

    def _trains(self, rows: Rows) -> bool:
        """Tell whether some parameter but those of other towers and the logit scale is trained."""
        bare = self.wrapped.bare
        others = {id(bare.logit_scale), id(bare.logit_bias)}
        for name, tower in bare.towers.items():
            if name not in rows:
                others |= {id(parameter) for parameter in tower.parameters()}
        return any(parameter.requires_grad and id(parameter) not in others for parameter in bare.parameters())


def _gradients(total: Tensor, leaves: Sequence[Tensor]) -> Sequence[Tensor | None]:
    if not total.requires_grad:  # a weight of 0 leaves the pairs out
        return [None] * len(leaves)
    return torch.autograd.grad(total, leaves, allow_unused=True)


def length(value: Any) -> int:
    """Return the number of samples of a batch: a tensor, a list, or a mapping of such."""
    return len(next(iter(cast("Mapping[str, Any]", value).values()))) if isinstance(value, Mapping) else len(value)


def _cut(value: Any, rows: slice) -> Any:
    """Return some samples of a batch."""
    if isinstance(value, Mapping):
        return {key: part[rows] for key, part in cast("Mapping[str, Any]", value).items()}
    return value[rows]
