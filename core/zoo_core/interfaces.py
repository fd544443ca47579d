"""Interfaces of towers and losses, and signatures of factories.

Few methods are required. The rest is derived, or refused with an error that names the tower. A component's factory is
called as

    vision-tower   factory(config, *, embed_dim: int) -> VisionTower
    text-tower     factory(config, *, embed_dim: int) -> TextTower
    tokenizer      factory(config, *, context_length: int) -> zoo_core.text.tokenizer.Tokenizer
    preprocessor   factory(config, *, image_size: tuple[int, int], train: bool) -> zoo_core.images.Preprocessor
    loss           factory(config) -> Loss
    model          factory(config, *, towers: tuple[str, ...], registry: Registry) -> DualEncoder

A tower must be buildable under `torch.device("meta")`, and must leave no parameter uninitialised elsewhere.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self, runtime_checkable

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from zoo_core.errors import CapabilityError, InputError
from zoo_core.nn.intermediates import BlockwiseModule
from zoo_core.nn.kv_cache import KVCache
from zoo_core.nn.layers import repeated_blocks
from zoo_core.nn.position_embedding import PositionTable

__all__ = ["AdditiveLoss", "LayerGroup", "Loss", "TextTower", "Tower", "VisionTower"]

LayerGroup = Sequence[nn.Module | nn.Parameter]
"""Parts of a tower that are locked and unlocked together."""

_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, _BatchNorm)


@runtime_checkable
class Loss(Protocol):
    """Scores a batch of pairs; row i of either side belongs to row i of the other."""

    def __call__(
        self, image_features: Tensor, text_features: Tensor, logit_scale: Tensor, logit_bias: Tensor | None = None
    ) -> Tensor:
        """Return a scalar for unit-norm features `[B, D]` and the exponentiated logit scale."""
        ...


@runtime_checkable
class AdditiveLoss(Protocol):
    """A loss over pairs to which each sample adds something of its own, such as the cross-entropy of its caption.

    What samples add can be computed for a few of them at a time, as training does with a batch that is too large for
    memory. The whole is the sum of `pair_losses` of all features and of `sample_losses` of every part of the batch.
    """

    sample_outputs: tuple[str, ...]
    """Names of the outputs of a model that samples are scored by, such as `("logits", "labels")`."""

    def pair_losses(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: Tensor,
        logit_bias: Tensor | None = None,
        *,
        ids: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> Mapping[str, Tensor]:
        """Return the losses over pairs by name.

        The arguments are those of `Loss`, and ids and weights of the pairs, `[B]`.
        """
        ...

    def sample_count(self, outputs: Mapping[str, Tensor]) -> Tensor:
        """Return how many things are scored in some samples, such as caption tokens, as a scalar."""
        ...

    def sample_losses(
        self, outputs: Mapping[str, Tensor], mean_count: Tensor, *, weights: Tensor | None = None
    ) -> Mapping[str, Tensor]:
        """Return by name what some samples add, so that the mean over processes of their sums is that of the batch.

        Args:
            outputs: those of `sample_outputs`.
            mean_count: `sample_count` of the batch of a process, meaned over processes.
            weights: factors of the samples, `[B]`.
        """
        ...

    def mean_over_processes(self, value: Tensor) -> Tensor:
        """Return the mean of a scalar over the processes that share the batch."""
        ...


class Tower(BlockwiseModule, ABC):
    """Base class of towers. A subclass sets `modality` and `output_dim`, and implements `forward`.

    Attributes:
        output_dim: width of the pooled features; must be the `embed_dim` that the factory was given.
    """

    output_dim: int

    def __init__(self) -> None:
        super().__init__()
        self._frozen_statistics: list[nn.Module] = []

    def forward_tokens(self, x: Any, /) -> tuple[Tensor, Tensor]:
        """Return pooled features `[B, output_dim]` and tokens `[B, N, width]`.

        Raises:
            CapabilityError: the tower does not claim `tokens`.
        """
        raise CapabilityError(f"{type(self).__name__} does not claim 'tokens'")

    def layer_groups(self) -> Sequence[LayerGroup]:
        """Return the parts of the tower from input to output, each of which can be unlocked on its own.

        A tower that claims `locking` overrides this; without it a tower is locked whole or not at all.
        """
        return [[self]]

    def lock(self, unlocked_groups: int = 0, *, freeze_norms: bool = True, freeze_bn_stats: bool = False) -> None:
        """Make the tower's parameters untrainable but for those of the last groups.

        Args:
            unlocked_groups: how many groups, counted from the output, stay trainable.
            freeze_norms: False leaves the weights of norms trainable everywhere.
            freeze_bn_stats: keep the running statistics of locked batch norms, also in training mode.

        Raises:
            InputError: `unlocked_groups` is negative.
            CapabilityError: some groups are asked for, but the tower has no groups.
        """
        if unlocked_groups < 0:
            raise InputError(f"unlocked_groups must not be negative, found {unlocked_groups}")
        groups = self.layer_groups()
        if unlocked_groups and len(groups) == 1:
            raise CapabilityError(f"{type(self).__name__} does not claim 'locking': it can only be locked whole")
        self.requires_grad_(False)
        unlocked = [part for group in groups[max(len(groups) - unlocked_groups, 0) :] for part in group]
        for part in unlocked:
            part.requires_grad_(True)
        if not freeze_norms:
            for module in self.modules():
                if isinstance(module, _NORMS):
                    module.requires_grad_(True)
        trained = {module for part in unlocked if isinstance(part, nn.Module) for module in part.modules()}
        batch_norms = [module for module in self.modules() if isinstance(module, _BatchNorm)]
        self._frozen_statistics = [norm for norm in batch_norms if freeze_bn_stats and norm not in trained]
        self.train(self.training)  # which puts them into evaluation mode

    def train(self, mode: bool = True) -> Self:
        """Set training mode; batch norms whose statistics are frozen stay in evaluation mode."""
        super().train(mode)
        for module in self._frozen_statistics:
            module.eval()
        return self

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations in the backward pass to save memory.

        Raises:
            CapabilityError: the tower does not claim `gradient-checkpointing`.
        """
        if enable:
            raise CapabilityError(f"{type(self).__name__} does not claim 'gradient-checkpointing'")

    def fsdp_blocks(self) -> Sequence[nn.Module]:
        """Return the modules whose weights FSDP2 gathers one module at a time; the rest is gathered with the model.

        They are called as modules in training, and none lies inside another. Without an override they are the blocks
        of the tower's stacks, `nn.ModuleList` or `nn.Sequential`.
        """
        return list(repeated_blocks(self))

    def no_weight_decay(self) -> set[str]:
        """Return the names of parameters that optimizers should not decay, beyond biases and norms."""
        return set()

    def position_tables(self) -> Mapping[str, PositionTable]:
        """Return the parameters that hold learned positions, by name, for weights of another size to be resampled."""
        return {}


class VisionTower(Tower):
    """Maps images to features.

    Attributes:
        image_size: height and width in pixels of the images it takes.
        image_channels: channels of the images it takes.
        variable_image_size: whether it takes other sizes too.
        image_patches: height and width in pixels of a patch, where it also takes patch batches (see
            `zoo_core.images.patches`) in place of images; None where it does not. A model checks them before the tower
            sees them, and images to be whole patches.
    """

    modality = "image"
    output_formats = ("NCHW", "NLC")
    image_size: tuple[int, int]
    image_channels: int = 3
    variable_image_size: bool = False
    image_patches: tuple[int, int] | None = None

    @abstractmethod
    def forward(self, image: Tensor) -> Tensor:
        """Return pooled features `[B, output_dim]` of images `[B, C, H, W]`."""

    def extra_tokens(self, outputs: Sequence[Tensor], /) -> dict[str, list[Tensor]]:
        """Return the tokens before the patches, `[B, P, C]`; maps have none."""
        prefix = [
            output.new_empty(output.shape[0], 0, output.shape[1])
            if output.ndim == 4
            else output[:, : self.num_prefix_tokens]
            for output in outputs
        ]
        return {"intermediates_prefix": prefix}


class TextTower(Tower):
    """Maps token ids to features.

    Attributes:
        context_length: number of positions.
        vocab_size: number of token embeddings.
        pad_id: token id that it masks as padding; None where it masks none. Tokenizers are held to it.
        eos_id: token id that each row must hold, since the feature is read there; None where any row will do.
        variable_text_length: whether it takes rows shorter than `context_length`.
    """

    modality = "text"
    output_formats = ("NLC",)
    context_length: int
    vocab_size: int
    pad_id: int | None = None
    eos_id: int | None = None
    variable_text_length: bool = False

    @abstractmethod
    def forward(self, text: Tensor) -> Tensor:
        """Return pooled features `[B, output_dim]` of token ids `[B, L]`."""

    def read_lengths(self, text: Tensor) -> Tensor | None:
        """Return on how many leading ids of each row of `text` `[B, L]` its feature depends, int64 `[B]`.

        What follows them can be cut off without a change of the feature. None where all ids count, as they do where
        padding is looked at. A tower that takes no shorter rows returns None.
        """
        return None

    def decode_step(self, text: Tensor, cache: KVCache) -> Tensor:
        """Return the tokens `[B, n, width]` of ids `[B, n]` that follow those in `cache`, and add them to it.

        They are what `forward_tokens` gives at these places of a row without padding.

        Raises:
            CapabilityError: tokens of this tower depend on later ones, or it has no KV cache.
        """
        raise CapabilityError(f"{type(self).__name__} cannot go on from the tokens before; its config says so")

    def extra_tokens(self, outputs: Sequence[Tensor], /) -> dict[str, list[Tensor]]:
        """Return the registers before the text and the tokens appended to it, where the tower has any."""
        entries: dict[str, list[Tensor]] = {}
        if self.num_prefix_tokens:
            entries["intermediates_extra"] = [output[:, : self.num_prefix_tokens] for output in outputs]
        if self.num_suffix_tokens:
            entries["intermediates_suffix"] = [output[:, -self.num_suffix_tokens :] for output in outputs]
        return entries
