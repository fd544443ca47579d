"""The modern text transformer as its definitions say it: one row, one head and one query at a time, in float64.

There are no masks here: a row is its tokens that are no padding, and a causal query has the keys up to its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo_text.modern.config import ModernTextConfig


@dataclass(frozen=True)
class Row:
    """What a row of ids becomes.

    Attributes:
        feature: `[embed_dim]`.
        tokens: `[L, C]`, normed; without registers.
        outputs: of each block `[R + L, C]`, registers first.
    """

    feature: Tensor
    tokens: Tensor
    outputs: list[Tensor]


class Reference:
    """A tower given by its config and its weights."""

    def __init__(self, config: ModernTextConfig, weights: dict[str, Tensor]) -> None:
        self.config = config
        self.weights = {name: weight.double() for name, weight in weights.items()}

    def __call__(self, text: Tensor) -> Row:
        """Transform one row of ids `[L]`; padding stands behind the others, or nothing else is there."""
        ids = [int(one) for one in text if one != self.config.pad_id] or [int(text[0])]
        x = self.weights["token_embedding.weight"][torch.tensor(ids)]
        if self.config.reg_tokens:
            x = torch.cat([self.weights["reg_tokens"][0], x])
        if self.config.pre_norm:
            x = self._norm("norm_pre", x)
        outputs: list[Tensor] = []
        first: Tensor | None = None
        for number in range(self.config.layers):
            x, first = self._block(f"blocks.{number}", x, first)
            outputs.append(x)
        tokens = self._norm("ln_final", x)[self.config.reg_tokens :]
        return Row(self._feature(tokens, ids), tokens, outputs)

    def _block(self, name: str, x: Tensor, first: Tensor | None) -> tuple[Tensor, Tensor]:
        attended, first = self._attention(f"{name}.attn", self._norm(f"{name}.norm1", x), first)
        x = x + self._branch(name, "1", attended)
        hidden = self._perceptron(f"{name}.mlp", self._norm(f"{name}.norm2", x))
        return x + self._branch(name, "2", hidden), first

    def _branch(self, name: str, number: str, x: Tensor) -> Tensor:
        if self.config.norm_placement == "sandwich":
            x = self._norm(f"{name}.norm{number}_post", x)
        return x if self.config.ls_init_value is None else x * self.weights[f"{name}.ls{number}.gamma"]

    def _attention(self, name: str, x: Tensor, first: Tensor | None) -> tuple[Tensor, Tensor]:
        heads = self.config.heads
        query, key, value = (part.chunk(heads, dim=-1) for part in self._linear(f"{name}.qkv", x).chunk(3, dim=-1))
        values = torch.stack(value)  # [H, N, C / H]
        if self.config.value_residual and first is not None:
            share = self.weights[f"{name}.vr_lambda"]
            values = (1 - share) * first + share * values
        mixed = torch.empty_like(x)
        for head, columns in enumerate(torch.arange(x.shape[1]).chunk(heads)):
            for place in range(len(x)):
                last = place + 1 if self.config.causal else len(x)
                own = self._turned(self._normed(f"{name}.q_norm", query[head][place]), place)
                logits = [
                    float(own @ self._turned(self._normed(f"{name}.k_norm", key[head][other]), other))
                    / math.sqrt(len(columns))
                    for other in range(last)
                ]
                shares = [math.exp(logit - max(logits)) for logit in logits]
                total = sum(one * values[head][other] for other, one in enumerate(shares))
                mixed[place, columns] = total / sum(shares)
        if self.config.attn_gated:
            mixed = mixed / (1 + torch.exp(-self._linear(f"{name}.gate", x)))
        return self._linear(f"{name}.proj", mixed), torch.stack(value) if first is None else first

    def _turned(self, x: Tensor, place: int) -> Tensor:
        """Multiply the complex numbers that neighbours are by `e ** (i * angle)`."""
        if self.config.pos_embed == "none":
            return x
        turned: list[float] = []
        for pair in range(len(x) // 2):
            angle = place * self.config.rope_temperature ** (-2 * pair / len(x))
            number = complex(float(x[2 * pair]), float(x[2 * pair + 1])) * complex(math.cos(angle), math.sin(angle))
            turned += [number.real, number.imag]
        return torch.tensor(turned, dtype=torch.float64)

    def _perceptron(self, name: str, x: Tensor) -> Tensor:
        if self.config.mlp == "swiglu":
            channels, gates = self._linear(f"{name}.w12", x).chunk(2, dim=-1)
            return self._linear(f"{name}.w3", channels * gates / (1 + torch.exp(-gates)))
        hidden = self._linear(f"{name}.c_fc", x)
        if self.config.mlp == "relu2":
            hidden = torch.where(hidden > 0, hidden * hidden, 0.0)
        else:
            hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
        return self._linear(f"{name}.c_proj", hidden)

    def _feature(self, tokens: Tensor, ids: list[int]) -> Tensor:
        match self.config.pool_type:
            case "eos":
                pooled = tokens[ids.index(self.config.eos_id) if self.config.eos_id in ids else len(ids) - 1]
            case "mean":
                pooled = sum(tokens) / len(tokens)  # type: ignore[assignment]
            case "map":
                pooled = self._looked_at(tokens)
        return pooled if self.config.proj_type == "none" else self._linear("text_projection", pooled)

    def _looked_at(self, tokens: Tensor) -> Tensor:
        query = self._linear("pool.q", self.weights["pool.query"][0, 0]).chunk(self.config.heads)
        key, value = (part.chunk(self.config.heads, dim=-1) for part in self._linear("pool.kv", tokens).chunk(2, -1))
        found: list[Tensor] = []
        for head, own in enumerate(query):
            logits = self._normed("pool.k_norm", key[head]) @ self._normed("pool.q_norm", own) / math.sqrt(len(own))
            shares = (logits - logits.max()).exp()
            found.append(shares @ value[head] / shares.sum())
        return torch.cat(found)

    def _linear(self, name: str, x: Tensor) -> Tensor:
        x = x @ self.weights[f"{name}.weight"].T
        return x + self.weights[f"{name}.bias"] if f"{name}.bias" in self.weights else x

    def _normed(self, name: str, x: Tensor) -> Tensor:
        return self._norm(name, x) if self.config.qk_norm else x

    def _norm(self, name: str, x: Tensor) -> Tensor:
        if self.config.norm == "layernorm":
            x = x - x.mean(-1, keepdim=True)
        x = x / (x.square().mean(-1, keepdim=True) + self.config.norm_eps).sqrt() * self.weights[f"{name}.weight"]
        return x + self.weights[f"{name}.bias"] if self.config.norm == "layernorm" else x
