"""Text tower of any encoder of transformers, pooled and projected.

Padding is masked by its id, in attention and in pooling. So rows may be cut to the longest caption of a batch, and the
features stay the same. Names in the state dict are those of open_clip's `HFTextEncoder`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from zoo_core.boundary.library_code import library_code
from zoo_core.errors import CapabilityError
from zoo_core.interfaces import LayerGroup, TextTower
from zoo_core.nn.intermediates import BlockOutputs, IntermediatesOptions
from zoo_hf.config import HfTextConfig
from zoo_hf.encoder import build_encoder, layers_of, positions_of
from zoo_hf.encoder_config import refuse
from zoo_hf.poolers import PoolType, pool

__all__ = ["HfTextTower"]

POSITIONS = ("position_embeddings.weight", "relative_attention_bias.weight")
"""Endings of the names of parameters that stand for positions."""


class HfTextTower(TextTower):
    """An encoder of transformers, a pooling and a projection.

    Args:
        config: which encoder, and how it is pooled and projected.
        embed_dim: width of the pooled feature.

    Raises:
        ConfigError: the encoder does not fit the config, or its folder is not there; the key is named.
        DownloadError: the encoder's config cannot be had from the Hub.
    """

    variable_text_length = True

    def __init__(self, config: HfTextConfig, *, embed_dim: int) -> None:
        super().__init__()
        with library_code(lambda cause: refuse("config", f"makes no encoder: {cause}")):
            encoder = config.encoder_config()
            width: int = encoder.hidden_size
            if config.proj == "none" and width != embed_dim:
                raise refuse("proj", f"none needs embed_dim {width}, as wide as the encoder; found {embed_dim}")
            self.context_length = config.context_length
            self.vocab_size = config.vocab_size
            self.output_dim = embed_dim
            self.pool_type: PoolType = config.pool_type
            self.pad_id = encoder.pad_token_id
            self.transformer: Any = build_encoder(encoder, with_pooler=config.pool_type == "cls")
            positions = positions_of(self.transformer, encoder)
            if positions is not None and config.context_length > positions:
                message = f"{config.context_length} tokens are more than the {positions} positions of the encoder"
                raise refuse("context_length", message)
            layers_of(self.transformer)
            self.proj = _projection(config.proj, width, embed_dim)

    def forward(self, text: Tensor) -> Tensor:
        """Return features `[B, embed_dim]` of token ids `[B, L]`."""
        return self.forward_tokens(text)[0]

    def read_lengths(self, text: Tensor) -> Tensor | None:
        """Return the number of ids of each row of `text` `[B, L]` up to its last that is no padding, at least one."""
        lengths = torch.arange(1, text.shape[1] + 1, device=text.device)
        return (lengths * (text != self.pad_id)).amax(dim=-1).clamp(min=1)

    def forward_tokens(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """Return features `[B, embed_dim]` and the last hidden state of every token `[B, L, width]`."""
        rows = text.shape[0]
        if not rows:  # encoders cannot reshape nothing
            text = text.new_zeros(1, text.shape[1])
        mask = text != self.pad_id  # [B, L]
        output = self.transformer(input_ids=text, attention_mask=mask.long(), return_dict=True)
        tokens = output.last_hidden_state  # [B, L, width]
        features = pool(self.pool_type, tokens, mask, getattr(output, "pooler_output", None))  # [B, width]
        return self.proj(features)[:rows], tokens[:rows]  # [B, embed_dim], [B, L, width]

    def num_blocks(self) -> int:
        """Return the number of layers of the encoder."""
        return len(layers_of(self.transformer)[1])

    def final_norm(self) -> nn.Module:
        """Return the norm behind the last layer, or what changes nothing where each layer ends in one, as in BERT."""
        parent, layers = layers_of(self.transformer)
        children = list(parent.named_children())
        behind = next(number for number, (_, child) in enumerate(children) if child is layers)
        norms = (child for name, child in children[behind:] if "norm" in name or name.startswith("ln"))
        return next(norms, nn.Identity())

    def run_blocks(self, text: Tensor, options: IntermediatesOptions, /) -> BlockOutputs:
        """Return the outputs of layers as hooks see them; see `BlockwiseModule.run_blocks`."""
        layers = layers_of(self.transformer)[1]
        last = max(options.numbers, default=None) if options.stop_early else None
        outputs: dict[int, Tensor] = {}

        def keep(number: int, layer: nn.Module, inputs: Any, output: Any) -> None:
            outputs[number] = output[0] if isinstance(output, tuple) else output
            if number == last:
                raise _EnoughError

        hooks = [layers[number].register_forward_hook(partial(keep, number)) for number in options.numbers]
        features = None
        try:
            features = self(text)
        except _EnoughError:
            pass
        finally:
            for hook in hooks:
                hook.remove()
        norm = self.final_norm() if options.normalize else nn.Identity()
        # An encoder is given one row where there is none.
        rows = [norm(outputs[number][: text.shape[0]]) for number in options.numbers]
        return BlockOutputs(rows, {}, features if options.features else None)

    def layer_groups(self) -> Sequence[LayerGroup]:
        """Return the embeddings, each layer (the last with what follows it) and the projection, if there is one."""
        _, layers = layers_of(self.transformer)
        *blocks, last = layers
        inside = {id(parameter) for parameter in layers.parameters()}
        stem: list[nn.Parameter] = []
        rest: list[nn.Parameter] = []
        group = stem
        for parameter in self.transformer.parameters():  # in the order of the modules
            if id(parameter) in inside:
                group = rest
            else:
                group.append(parameter)
        projection = [self.proj] if any(True for _ in self.proj.parameters()) else None
        groups: list[LayerGroup] = [stem, *([block] for block in blocks), [last, *rest]]
        return [*groups, projection] if projection else groups

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each layer in the backward pass.

        Raises:
            CapabilityError: transformers does not offer it for this encoder.
        """
        encoder = self.transformer
        if enable and not encoder.supports_gradient_checkpointing:
            raise CapabilityError(f"an encoder of type '{encoder.config.model_type}' does not offer checkpointing")
        switch = "enable" if enable else "disable"
        call = getattr(encoder, f"activation_checkpointing_{switch}", None)  # its name in newer versions
        call = call or getattr(encoder, f"gradient_checkpointing_{switch}")
        call({"use_reentrant": False}) if enable else call()

    def no_weight_decay(self) -> set[str]:
        """Return the learned positions."""
        return {name for name, _ in self.named_parameters() if name.endswith(POSITIONS)}

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        # Counted numbers, which older versions of transformers saved with the weights.
        state_dict.pop(f"{prefix}transformer.embeddings.position_ids", None)
        super()._load_from_state_dict(state_dict, prefix, *args)


class _EnoughError(Exception):
    """Every layer that is wanted has run."""


def _projection(proj: str, width: int, embed_dim: int) -> nn.Module:
    match proj:
        case "none":
            return nn.Identity()
        case "linear":
            return nn.Linear(width, embed_dim, bias=False)
        case _:
            hidden = (width + embed_dim) // 2
            return nn.Sequential(
                nn.Linear(width, hidden, bias=False), nn.GELU(), nn.Linear(hidden, embed_dim, bias=False)
            )
