"""Outputs of a tower's blocks: chosen, normed, as maps or as tokens.

A tower that claims `intermediates` implements three methods: `num_blocks`, `forward_blocks` and `forward_head`.
Its base class `BlockwiseModule` derives `forward_intermediates` from them, with every option, check and error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import index
from typing import Any, ClassVar, NamedTuple, NoReturn, cast

from torch import Tensor, nn

from zoo_core.boundary.plugin_code import maker_of
from zoo_core.errors import CapabilityError, InputError, PluginError, describe
from zoo_core.nn.tracing import is_traced

__all__ = ["BlockOutputs", "BlockwiseModule", "IntermediatesOptions", "take_indices"]


@dataclass(frozen=True, kw_only=True)
class IntermediatesOptions:
    """What a caller asks for, checked.

    Attributes:
        numbers: of the chosen blocks, ascending, from 0.
        stop_early: the blocks after the last chosen one need not run, since nobody asks for features.
        normalize: apply the final norm to each output.
        features: return the pooled features too.
        output_fmt: `"NCHW"` or `"NLC"`.
        extra_tokens: return the tokens that are neither patches nor text too.
    """

    numbers: tuple[int, ...]
    stop_early: bool
    normalize: bool
    features: bool
    output_fmt: str
    extra_tokens: bool


class BlockOutputs(NamedTuple):
    """What a tower's blocks gave.

    Attributes:
        outputs: of the chosen blocks, first to last: maps `[B, C, h, w]`, or tokens `[B, N, C]` of patches or text.
        extra: further entries by name, such as `intermediates_prefix`.
        features: pooled features `[B, output_dim]`; None where nobody asks for them.
    """

    outputs: list[Tensor]
    extra: Mapping[str, Any]
    features: Tensor | None


class BlockwiseModule(nn.Module):
    """A module that runs block by block, the base class of towers.

    Attributes:
        modality: what it encodes; the entries of `forward_intermediates` begin with it.
        output_formats: the values of `output_fmt` that it takes, its default first.
        num_prefix_tokens: how many tokens stand before those of patches or text in the outputs of blocks.
        num_suffix_tokens: how many stand behind them.
        patch_dropout: share of patches that training leaves out; there are no intermediates then.
    """

    modality: ClassVar[str]
    output_formats: ClassVar[tuple[str, ...]]
    num_prefix_tokens: int = 0
    num_suffix_tokens: int = 0
    patch_dropout: float = 0.0

    def num_blocks(self) -> int:
        """Return how many outputs `forward_blocks` yields.

        Raises:
            CapabilityError: the tower does not claim `intermediates`.
        """
        raise CapabilityError(f"{type(self).__name__} does not claim 'intermediates'")

    def forward_blocks(self, inputs: Tensor, /) -> Iterator[Tensor]:
        """Yield the output of each block: a map `[B, C, h, w]`, or tokens `[B, N, C]` with prefix and suffix.

        Nobody asks for the output of a block that need not run.
        """
        raise CapabilityError(f"{type(self).__name__} does not claim 'intermediates'")

    def forward_head(self, x: Tensor, inputs: Tensor, /) -> Tensor:
        """Return the features `[B, output_dim]` of the last block's output `x`, as `forward` does."""
        raise CapabilityError(f"{type(self).__name__} does not claim 'intermediates'")

    def final_norm(self) -> Callable[[Tensor], Tensor]:
        """Return the norm for `normalize_intermediates`; it takes what `forward_blocks` yields.

        Raises:
            InputError: there is none.
        """
        raise InputError(f"normalize_intermediates: {type(self).__name__} has no final norm to apply; leave it out")

    def patch_grid(self, inputs: Tensor, /) -> tuple[int, int]:
        """Return rows and columns of the patches of images, for a tower whose blocks give tokens.

        Raises:
            InputError: the tokens make no map.
        """
        raise InputError(f"the tokens of {type(self).__name__} make no map: ask for {self.modality}_output_fmt='NLC'")

    def extra_tokens(self, outputs: Sequence[Tensor], /) -> dict[str, list[Tensor]]:
        """Return the entries of `output_extra_tokens`, of what `forward_blocks` yielded."""
        return {}

    def run_blocks(self, inputs: Tensor, options: IntermediatesOptions, /) -> BlockOutputs:
        """Run the blocks and return what `options` ask for.

        A tower whose blocks run inside a library overrides this, in place of `forward_blocks` and `forward_head`.

        Raises:
            PluginError: the blocks are not what the tower says.
        """
        norm: Any = self.final_norm() if options.normalize else None
        if options.normalize and not callable(norm):
            self._fail(f"final_norm must return a norm, found {type(norm).__name__}")
        stop = max(options.numbers, default=-1) + 1 if options.stop_early else None
        outputs: list[Tensor] = []
        x: Any = inputs
        count = 0
        for count, x in enumerate(islice(self.forward_blocks(inputs), stop), start=1):
            if count - 1 in options.numbers:
                self._check_block(x, inputs)
                outputs.append(x)
        expected = self.num_blocks() if stop is None else stop
        if count != expected:
            self._fail(f"num_blocks() is {self.num_blocks()}, but forward_blocks yields {count} outputs")
        features = self.forward_head(x, inputs) if options.features else None
        if norm is not None:
            outputs = [cast("Tensor", norm(output)) for output in outputs]
        extra = self.extra_tokens(outputs) if options.extra_tokens else {}
        if self.num_prefix_tokens or self.num_suffix_tokens:  # there are none beside maps
            outputs = [
                output[:, self.num_prefix_tokens : output.shape[1] - self.num_suffix_tokens] for output in outputs
            ]
        return BlockOutputs(outputs, extra, features)

    def forward_intermediates(
        self,
        x: Tensor,
        *,
        indices: int | Sequence[int] | None = None,
        stop_early: bool = False,
        normalize_intermediates: bool = False,
        intermediates_only: bool = False,
        output_fmt: str | None = None,
        output_extra_tokens: bool = False,
    ) -> dict[str, Any]:
        """Return the outputs of blocks, and the pooled features unless `intermediates_only`.

        Args:
            x: what the tower encodes: images `[B, C, H, W]`, or token ids `[B, L]`.
            indices: None for all blocks, n for the last n, or block numbers; outputs come in the order of the blocks.
            stop_early: leave out blocks after the last chosen one. Features need every block, so this saves work
                only with `intermediates_only`; it never changes a result.
            normalize_intermediates: apply the final norm to each output.
            intermediates_only: leave the features out.
            output_fmt: `"NCHW"` (a map `[B, C, h, w]`, the default of images) or `"NLC"` (tokens `[B, N, C]`, the only
                format of text).
            output_extra_tokens: also return the tokens that are neither patches nor text.

        Returns:
            for images, `image_intermediates` (list), `image_features` `[B, output_dim]` and, on request,
            `image_intermediates_prefix` (list of `[B, P, C]`). For text, `text_intermediates`, `text_features` and, on
            request, `text_intermediates_suffix`, where the tower appends a token of its own, or
            `text_intermediates_extra`, where it has registers before the text.

        Raises:
            CapabilityError: the tower does not claim `intermediates`.
            InputError: a block number or a format does not exist, the tower has no final norm, or it drops patches.
            PluginError: its blocks are not what the tower says.
        """
        count = self.num_blocks()
        if not isinstance(cast("object", count), int) or count < 1:
            self._fail(f"num_blocks must return a whole number from 1, found {describe(count)}")
        output_fmt = self.output_formats[0] if output_fmt is None else output_fmt
        if output_fmt not in self.output_formats:
            allowed = " or ".join(map(repr, self.output_formats))
            raise InputError(f"{self.modality}_output_fmt must be {allowed}, found {output_fmt!r}")
        if self.training and self.patch_dropout:
            raise InputError("intermediates need every patch: call eval(), or build with vision.patch_dropout=0")
        options = IntermediatesOptions(
            numbers=take_indices(indices, count),
            stop_early=stop_early and intermediates_only,
            normalize=normalize_intermediates,
            features=not intermediates_only,
            output_fmt=output_fmt,
            extra_tokens=output_extra_tokens,
        )
        blocks = self.run_blocks(x, options)
        if not isinstance(cast("object", blocks), BlockOutputs) or len(blocks.outputs) != len(options.numbers):
            self._fail(
                f"run_blocks must return BlockOutputs of {len(options.numbers)} blocks, found {describe(blocks)}"
            )
        formatted = [self._formatted(output, x, output_fmt) for output in blocks.outputs]
        entries: dict[str, Any] = {"intermediates": formatted, **blocks.extra}
        if blocks.features is not None:
            entries["features"] = blocks.features
        return {f"{self.modality}_{name}": value for name, value in entries.items()}

    def _formatted(self, output: Tensor, inputs: Tensor, output_fmt: str) -> Tensor:
        """Return a map `[B, C, h, w]` or tokens `[B, N, C]` of either, row by row."""
        if output_fmt == "NLC":
            return output.flatten(2).transpose(1, 2) if output.ndim == 4 else output
        if output.ndim == 4:
            return output
        rows, columns = self._grid(output, inputs)
        return output.transpose(1, 2).contiguous().view(output.shape[0], output.shape[2], rows, columns)

    def _grid(self, output: Tensor, inputs: Tensor) -> tuple[int, int]:
        """Return rows and columns of the patches, which there have to be as many of as the tower says."""
        grid = self.patch_grid(inputs)
        if is_traced(output):
            return grid
        if not isinstance(cast("object", grid), tuple) or len(grid) != 2:
            self._fail(f"patch_grid must return rows and columns, found {describe(grid)}")
        rows, columns = grid
        if rows * columns != output.shape[1]:
            self._fail(
                f"its blocks give {output.shape[1]} patches, patch_grid {rows} x {columns}, where num_prefix_tokens is "
                f"{self.num_prefix_tokens} and num_suffix_tokens is {self.num_suffix_tokens}"
            )
        return rows, columns

    def _check_block(self, output: object, inputs: Any) -> None:
        """Hold the output of a block to the shapes of a map or of tokens, the extra ones among them."""
        if is_traced(output):
            return
        rows = len(cast("Any", inputs["patches"] if isinstance(inputs, Mapping) else inputs))
        if not isinstance(output, Tensor) or output.ndim not in (3, 4) or len(output) != rows:
            found = str(list(output.shape)) if isinstance(output, Tensor) else type(output).__name__
            self._fail(f"forward_blocks must yield [{rows}, C, h, w] or [{rows}, N, C], found {found}")
        prefix, suffix = self.num_prefix_tokens, self.num_suffix_tokens
        if output.ndim == 4 and (prefix or suffix):
            self._fail("forward_blocks yields maps, beside which there are no prefix or suffix tokens")
        if output.ndim == 3 and not 0 <= prefix <= prefix + suffix <= output.shape[1]:
            self._fail(
                f"forward_blocks yields {output.shape[1]} tokens, but num_prefix_tokens is {prefix} and "
                f"num_suffix_tokens is {suffix}"
            )

    def _fail(self, promise: str) -> NoReturn:
        raise PluginError(f"{maker_of(type(self))}: {promise}")


def take_indices(indices: int | Sequence[int] | None, count: int) -> tuple[int, ...]:
    """Return the numbers of the blocks that `indices` stands for, in ascending order.

    Args:
        indices: None for all, n for the last n, or block numbers (negative ones count from the end).
        count: how many blocks there are.

    Raises:
        InputError: a number is out of range, or no whole number.
    """
    if indices is None:
        return tuple(range(count))
    try:
        chosen = [*map(index, indices)] if isinstance(indices, Sequence) else index(indices)
    except TypeError:
        expected = "a whole number, several of them in a list or a tuple, or None"
        raise InputError(f"indices must be {expected}, found {describe(indices)}") from None
    if isinstance(chosen, int):
        if not 1 <= chosen <= count:
            raise InputError(f"indices: the last {chosen} of {count} blocks do not exist; allowed: 1 to {count}")
        return tuple(range(count - chosen, count))
    for number in chosen:
        if not -count <= number < count:
            raise InputError(f"indices: there is no block {number}; allowed: {-count} to {count - 1}")
    return tuple(sorted({number % count for number in chosen}))
