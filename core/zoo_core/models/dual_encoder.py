"""Dual encoders: towers that share an embedding space.

CLIP, CustomTextCLIP and models of plugins derive from `DualEncoder` and differ only where they differ. Inputs are
checked at the door: a wrong shape, dtype or token id is an `InputError` that says what was found and allowed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo_core.boundary import checked
from zoo_core.errors import InputError
from zoo_core.images import Preprocessor
from zoo_core.interfaces import TextTower, Tower, VisionTower
from zoo_core.models.build_tower import build_tower
from zoo_core.models.features import intermediates_of
from zoo_core.models.frozen import Freezable
from zoo_core.models.logit_scale import LOGIT_SCALE, LogitScaled, Scoring
from zoo_core.models.modality import Modality
from zoo_core.models.towers import Towers, modalities_of
from zoo_core.nn.precision import matrix_dtype
from zoo_core.registry import Registry
from zoo_core.text.tokenizer import Tokenizer
from zoo_core.text.truncation import Overflow

if TYPE_CHECKING:
    from zoo_core.config import ModelConfig
    from zoo_core.config.dual_encoder import LogitScaledConfig
    from zoo_core.text.contract import TextContract

__all__ = ["LOGIT_SCALE", "DualEncoder", "Scoring", "dual_encoder_of"]


class DualEncoder(Freezable, Towers, LogitScaled):  # pyright: ignore[reportIncompatibleMethodOverride]
    """Towers that share an embedding space: an image tower and a text tower, or those of other modalities.

    Args:
        towers: the towers that are built, by modality.
        modalities: what the model encodes, by name, towers that are left out included; images and text where None.
        init_logit_scale: initial logarithm of the factor between cosines and logits.
        init_logit_bias: initial offset of the logits; no such parameter where None.
        nonscalar_logit_scale: give scale and bias the shape `[1]` instead of `[]` in outputs and state dicts.
        output_dict: `forward` returns a dict instead of a tuple.

    Attributes:
        config: the resolved architecture, where one was used to build the model; a model built by hand has no such
            attribute, since libraries that find one expect something in it.
        tokenizer, preprocess: what strings and images go through; None for a model built by hand.
        notes: what was assumed and done when weights were loaded, one sentence each.
    """

    config: ModelConfig
    tokenizer: Tokenizer | None = None
    preprocess: Preprocessor | None = None
    notes: tuple[str, ...] = ()

    def __init__(
        self,
        towers: Mapping[str, Tower],
        *,
        modalities: Mapping[str, Modality] | None = None,
        init_logit_scale: float = LOGIT_SCALE,
        init_logit_bias: float | None = None,
        nonscalar_logit_scale: bool = False,
        output_dict: bool = False,
    ) -> None:
        super().__init__()
        self.output_dict = output_dict
        self._add_towers(towers, modalities)
        self._add_logit_scale(init_logit_scale, init_logit_bias, nonscalar_logit_scale)

    @classmethod
    def from_towers(cls, towers: Mapping[str, Tower], **options: Any) -> Self:
        """Return a model of towers that are built; the options are those of `DualEncoder`.

        Constructors of subclasses take configs instead, and build the towers of these.
        """
        model = cls.__new__(cls)
        DualEncoder.__init__(model, towers, **options)
        return model

    @classmethod
    def from_config(
        cls, config: LogitScaledConfig, *, towers: Sequence[str], registry: Registry, **options: Any
    ) -> Self:
        """Build the `towers` of an architecture, by modality; further options are those of `DualEncoder`."""
        return cls.from_towers(
            {
                name: build_tower(registry, section, config.embed_dim)
                for name, section in config.towers.items()
                if name in towers
            },
            modalities=modalities_of(registry, config.towers),
            init_logit_scale=config.init_logit_scale,
            init_logit_bias=config.init_logit_bias,
            nonscalar_logit_scale=config.nonscalar_logit_scale,
            **options,
        )

    @property
    def context_length(self) -> int:
        """Number of token positions of the text tower."""
        return self._tower("text").context_length

    @property
    def vocab_size(self) -> int:
        """Number of token embeddings of the text tower."""
        return self._tower("text").vocab_size

    @property
    def dtype(self) -> torch.dtype:
        """What the matrices of the model are in."""
        return matrix_dtype(self, self.logit_scale.dtype)

    @property
    def text_contract(self) -> TextContract | None:
        """What a caption becomes and how it is read; None for a model built by hand."""
        config: ModelConfig | None = self.__dict__.get("config")
        return None if config is None else config.text_contract()

    @checked
    def encode_image(self, image: Any, normalize: bool = False) -> Tensor:
        """Return image features.

        Args:
            image: a float tensor `[B, C, H, W]` that is already preprocessed, or a PIL image, a path, raw pixels as
                a uint8 tensor `[3, H, W]`, or a list of such, or raw pixels `[B, 3, H, W]`; those go through the
                model's own preprocessing, tensors on their device. Where the tower takes patches, also a patch batch
                (see `zoo_core.images.patches`).
            normalize: scale each feature to unit length.

        Returns:
            features `[B, embed_dim]`, in the dtype of the tower. In evaluation mode, gradients of pictures and of raw
            pixels are not recorded, unless parts of the model are frozen and the others not: then it is being
            trained. Those of preprocessed tensors always are.

        Raises:
            InputError: the input does not fit the tower, or the model has no image tower or preprocessing.
            ImageFileError: a file is no readable image.
        """
        return self._encode("image", image, normalize)

    @checked
    def encode_text(self, text: Any, normalize: bool = False, *, overflow: Overflow = "warn") -> Tensor:
        """Return text features.

        Args:
            text: int64 or int32 token ids `[B, L]`, or a string, or a sequence of strings; those go through the
                model's own tokenizer.
            normalize: scale each feature to unit length.
            overflow: what happens to strings that are too long: `warn` cuts them and says how many, `truncate` cuts
                them in silence, `error` refuses them.

        Returns:
            features `[B, embed_dim]`, in the dtype of the tower. Where padding cannot change them, captions of like
            length are encoded together, without it (see `zoo_core.models.encode_text`). In evaluation mode, gradients
            of strings are not recorded, unless parts of the model are frozen and the others not; those of token ids
            always are.

        Raises:
            InputError: the ids do not fit the tower, or the model has no text tower or tokenizer.
        """
        return self._encode("text", text, normalize, overflow=overflow)

    def get_logits(self, image: Any, text: Any) -> tuple[Tensor, Tensor]:
        """Return `(image_logits [B, T], text_logits [T, B])`: scaled cosines, plus the bias if there is one."""
        with self._recording(self, image=image, text=text):
            return self._logits(self.encode_image(image, normalize=True), self.encode_text(text, normalize=True))

    def similarity(self, image: Any, text: Any) -> Tensor:
        """Return the cosine `[B, T]` of each image and each text; the arguments are those of encoding."""
        return self.encode_image(image, normalize=True) @ self.encode_text(text, normalize=True).T

    @checked
    def probabilities(self, image: Any, text: Any, *, scoring: Scoring | None = None) -> Tensor:
        """Return how likely each text is for each image, as the model was trained to tell it.

        Args:
            image: as in `encode_image`.
            text: as in `encode_text`.
            scoring: what the caller counts on; an error where the model was trained for the other one.

        Returns:
            float32 `[B, T]`. With `softmax` each row adds up to 1; with `sigmoid` each value stands by itself.

        Raises:
            InputError: the model was trained for another scoring, or one text alone would win its softmax.
        """
        self._check_scoring(scoring)
        with self._recording(self, image=image, text=text):
            return self.feature_probabilities(
                self.encode_image(image, normalize=True), self.encode_text(text, normalize=True)
            )

    def forward(self, image: Any = None, text: Any = None, **inputs: Any) -> dict[str, Any] | tuple[Any, ...]:
        """Return unit-norm features and the exponentiated logit scale.

        It is what training calls: gradients are recorded whatever the inputs are.

        Args:
            image: as in `encode_image`; features are None where this is None.
            text: as in `encode_text`; features are None where this is None.
            inputs: those of other modalities that the model encodes, by name.

        Returns:
            a dict with `image_features`, `text_features`, `logit_scale` and, if the model has one, `logit_bias`
            where `output_dict` is set; else a tuple of these three or four. A model of other modalities has their
            features in place of those, by their names and in their order.
        """
        values = self._by_modality(image, text, inputs)
        if torch.is_grad_enabled():  # what is raw becomes a tensor here, since encoding raw inputs records no gradients
            for name, value in values.items():
                if not (value is None or self.modalities[name].is_prepared(value)):
                    values[name] = self._inputs(name, value)
        output: dict[str, Any] = {
            f"{name}_features": None if value is None else self._encode(name, value, True)
            for name, value in values.items()
        }
        output |= self._scale_and_bias()
        return output if self.output_dict else tuple(output.values())

    @checked
    def forward_intermediates(
        self,
        image: Any = None,
        text: Any = None,
        image_indices: int | Sequence[int] | None = None,
        text_indices: int | Sequence[int] | None = None,
        stop_early: bool = False,
        normalize: bool = True,
        normalize_intermediates: bool = False,
        intermediates_only: bool = False,
        image_output_fmt: str = "NCHW",
        image_output_extra_tokens: bool = False,
        text_output_fmt: str = "NLC",
        text_output_extra_tokens: bool = False,
        output_logits: bool = False,
        output_logit_scale_bias: bool = False,
    ) -> dict[str, Any]:
        """Return the outputs of the towers' blocks beside the features.

        Args:
            image: as in `encode_image`, or None.
            text: as in `encode_text`, or None.
            image_indices: blocks of the image tower: None for all, n for the last n, or block numbers.
            text_indices: the same for the text tower.
            stop_early: leave out blocks after the last wanted one, where `intermediates_only` allows it.
            normalize: scale final features to unit length.
            normalize_intermediates: apply each tower's final norm to its intermediates.
            intermediates_only: leave out features and logits.
            image_output_fmt: `"NCHW"` or `"NLC"`.
            image_output_extra_tokens: also return the tokens that are no patches.
            text_output_fmt: `"NLC"`.
            text_output_extra_tokens: also return the tokens that the text tower appends.
            output_logits: also return `image_logits` and `text_logits`; needs image and text. The logits are of
                the features as returned: cosines where `normalize` is set.
            output_logit_scale_bias: also return `logit_scale` (exponentiated) and, if there is one, `logit_bias`.

        Returns:
            the entries that the towers' own `forward_intermediates` name, and those above.

        Raises:
            CapabilityError: a tower gives no intermediates.
            InputError: an index, a format or an input does not fit.
        """
        output_logits = output_logits and not intermediates_only
        if output_logits and (image is None or text is None):
            raise InputError("output_logits needs both image and text")
        asked = {
            "image": (image, image_indices, image_output_fmt, image_output_extra_tokens),
            "text": (text, text_indices, text_output_fmt, text_output_extra_tokens),
        }
        output: dict[str, Any] = {}
        for name, (value, indices, output_fmt, output_extra_tokens) in asked.items():
            if value is not None:
                output |= intermediates_of(
                    self._tower(name),
                    self._inputs(name, value),
                    indices=indices,
                    stop_early=stop_early,
                    normalize_intermediates=normalize_intermediates,
                    intermediates_only=intermediates_only,
                    output_fmt=output_fmt,
                    output_extra_tokens=output_extra_tokens,
                )
            key = f"{name}_features"
            if normalize and key in output:
                output[key] = F.normalize(output[key], dim=-1)
        if output_logits:
            output["image_logits"], output["text_logits"] = self._logits(
                output["image_features"], output["text_features"]
            )
        return output | self._scale_and_bias() if output_logit_scale_bias else output


if TYPE_CHECKING:

    class BuiltModel(DualEncoder):
        """What type checkers take a model of `zoo.build` for: what it always sets is never None.

        A tower that `towers=` leaves out is None all the same.
        """

        tokenizer: Tokenizer  # pyright: ignore[reportIncompatibleVariableOverride]
        preprocess: Preprocessor  # pyright: ignore[reportIncompatibleVariableOverride]
        visual: VisionTower  # pyright: ignore[reportIncompatibleVariableOverride]
        text: TextTower  # pyright: ignore[reportIncompatibleVariableOverride]


def dual_encoder_of(model: object) -> DualEncoder:
    """Return a model, out of what torch.compile wraps around it.

    Raises:
        InputError: it is no model of zoo; where it wraps one, the message says how to get at that.
    """
    bare = getattr(model, "_orig_mod", model)
    if isinstance(bare, DualEncoder):
        return bare
    inner = getattr(model, "module", None)
    fix = "; give its .module" if isinstance(inner, DualEncoder) else "; zoo.build makes them"
    raise InputError(f"expected a model of zoo, found {type(model).__name__}{fix}")
