"""The dual encoder, written once: two towers, a logit scale, and everything that users do with them.

CLIP, CustomTextCLIP and models of plugins derive from `DualEncoder` and differ only where they differ. Inputs are
checked at the door: a wrong shape, dtype or token id is an `InputError` that says what was found and allowed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Literal, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo_core.boundary import checked
from zoo_core.errors import InputError
from zoo_core.images import Preprocessor, moved
from zoo_core.images.patches import PatchBatch
from zoo_core.interfaces import TextTower, VisionTower
from zoo_core.models.captions import encode_captions
from zoo_core.models.inputs import (
    check_image,
    check_largest_ids,
    check_prepared,
    check_token_ids,
    check_tokenized,
    check_tokenizer,
    checked_patches,
    device_of,
    is_raw,
)
from zoo_core.models.text_buckets import encode_rows
from zoo_core.models.towers import features_of
from zoo_core.nn.inference_forms import Optimization
from zoo_core.nn.precision import matrix_dtype
from zoo_core.nn.state_dict import is_sharded, own_names, own_state_dict, publishes, sharded_like
from zoo_core.nn.tracing import is_symbolic
from zoo_core.text.tokenizer import Tokenizer, checked_texts
from zoo_core.text.truncation import Overflow, checked_overflow

if TYPE_CHECKING:
    from zoo_core.config import ModelConfig
    from zoo_core.text.contract import TextContract

__all__ = ["DualEncoder", "Scoring", "dual_encoder_of"]

Scoring = Literal["softmax", "sigmoid"]

LOGIT_SCALE = math.log(1 / 0.07)
"""Initial logarithm of the logit scale (Radford et al. 2021)."""


class DualEncoder(nn.Module):
    """An image tower and a text tower that share an embedding space.

    Args:
        visual: image tower; None for a model that was built without one.
        text: text tower; None for a model that was built without one.
        init_logit_scale: initial logarithm of the factor between cosines and logits.
        init_logit_bias: initial offset of the logits; no such parameter where None.
        nonscalar_logit_scale: give scale and bias the shape `[1]` instead of `[]` in outputs and state dicts. The
            parameters themselves always have it, since FSDP shards no scalars.
        output_dict: `forward` returns a dict instead of a tuple.

    Attributes:
        config: the resolved architecture, where one was used to build the model; a model built by hand has no such
            attribute, since libraries that find one expect something in it.
        optimizations: what `zoo.build(..., optimize="inference")` did, and what it brought; None for any other model.
            Where it is not None the model computes features and nothing else: it cannot be trained, saved or moved.
        tokenizer, preprocess: what strings and pictures go through; None for a model built by hand.
        notes: what was assumed and done when weights were loaded, one sentence each.
    """

    config: ModelConfig
    optimizations: tuple[Optimization, ...] | None = None
    tokenizer: Tokenizer | None = None
    preprocess: Preprocessor | None = None
    notes: tuple[str, ...] = ()
    logit_scale: nn.Parameter
    logit_bias: nn.Parameter | None

    def __init__(
        self,
        visual: VisionTower | None,
        text: TextTower | None,
        *,
        init_logit_scale: float = LOGIT_SCALE,
        init_logit_bias: float | None = None,
        nonscalar_logit_scale: bool = False,
        output_dict: bool = False,
    ) -> None:
        super().__init__()
        self.output_dict = output_dict
        self.visual = visual
        self.text = text
        self.nonscalar_logit_scale = nonscalar_logit_scale
        self.logit_scale = nn.Parameter(torch.full((1,), float(init_logit_scale)))
        bias = None if init_logit_bias is None else nn.Parameter(torch.full((1,), float(init_logit_bias)))
        self.register_parameter("logit_bias", bias)

    @property
    def context_length(self) -> int:
        """Number of token positions of the text tower."""
        return self._text_tower().context_length

    @property
    def vocab_size(self) -> int:
        """Number of token embeddings of the text tower."""
        return self._text_tower().vocab_size

    @property
    def dtype(self) -> torch.dtype:
        """What the matrices of the model are in."""
        return matrix_dtype(self, self.logit_scale.dtype)

    @property
    def text_contract(self) -> TextContract | None:
        """What a caption becomes and how it is read; None for a model built by hand."""
        config = self._config()
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
        tower = self._image_tower()
        with self._recording(tower, image):
            features = features_of(tower, self._image_input(image, tower))
            return F.normalize(features, dim=-1) if normalize else features

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
            length are encoded together, without it (see `zoo_core.models.text_buckets`). In evaluation mode, gradients
            of strings are not recorded, unless parts of the model are frozen and the others not; those of token ids
            always are.

        Raises:
            InputError: the ids do not fit the tower, or the model has no text tower or tokenizer.
        """
        tower, tokenizer = self._text_tower(), self.tokenizer
        checked_overflow(overflow)
        with self._recording(tower, text):
            if isinstance(text, Tensor) or is_symbolic(text) or tower.training or tokenizer is None:
                features = encode_rows(tower, self._token_ids(text, tower, overflow))
            else:
                features = encode_captions(
                    checked_texts(text),
                    tokenizer,
                    lambda ids: encode_rows(tower, self._fitting(ids, tower, tokenizer)),
                    overflow,
                )
            return F.normalize(features, dim=-1) if normalize else features

    def get_logits(self, image: Any, text: Any) -> tuple[Tensor, Tensor]:
        """Return `(image_logits [B, T], text_logits [T, B])`: scaled cosines, plus the bias if there is one."""
        with self._recording(self, image, text):
            return self._logits(self.encode_image(image, normalize=True), self.encode_text(text, normalize=True))

    @property
    def scoring(self) -> Scoring:
        """How logits become probabilities: each pair by its own (`sigmoid`) where the model was trained with a logit
        bias (Zhai et al. 2023), else the texts against each other (`softmax`)."""
        return "softmax" if self.logit_bias is None else "sigmoid"

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
        if scoring not in (None, self.scoring):
            bias = "without a logit bias" if self.logit_bias is None else "with a logit bias"
            raise InputError(f"this model was trained {bias}: its scores are a {self.scoring}, not a {scoring}")
        with self._recording(self, image, text):
            return self.feature_probabilities(
                self.encode_image(image, normalize=True), self.encode_text(text, normalize=True)
            )

    @checked
    def feature_probabilities(self, image_features: Tensor, text_features: Tensor) -> Tensor:
        """Return what `probabilities` does, of unit-norm features `[B, D]` and `[T, D]`."""
        shapes = [list(image_features.shape), list(text_features.shape)]
        if image_features.ndim != 2 or text_features.ndim != 2 or shapes[0][1] != shapes[1][1]:
            raise InputError(f"expected features [B, D] and [T, D], found {shapes[0]} and {shapes[1]}")
        if self.scoring == "softmax" and len(text_features) < 2:
            raise InputError("a softmax needs at least two texts to choose from: one alone always wins")
        logits = self._logits(image_features, text_features)[0].float()
        return logits.softmax(dim=-1) if self.scoring == "softmax" else logits.sigmoid()

    def forward(self, image: Any = None, text: Any = None) -> dict[str, Any] | tuple[Any, ...]:
        """Return unit-norm features and the exponentiated logit scale.

        It is what training calls: gradients are recorded whatever the inputs are.

        Args:
            image: as in `encode_image`; features are None where this is None.
            text: as in `encode_text`; features are None where this is None.

        Returns:
            a dict with `image_features`, `text_features`, `logit_scale` and, if the model has one, `logit_bias`
            where `output_dict` is set; else a tuple of these three or four.
        """
        if torch.is_grad_enabled():  # pictures and strings become tensors, whose gradients encoding records
            if not (image is None or _is_prepared(image)):
                image = self._image_input(image, self._image_tower())
            if not (text is None or _is_prepared(text)):
                text = self._token_ids(text, self._text_tower())
        output: dict[str, Any] = {
            "image_features": None if image is None else self.encode_image(image, normalize=True),
            "text_features": None if text is None else self.encode_text(text, normalize=True),
            "logit_scale": self._published(self.logit_scale.exp()),
        }
        if self.logit_bias is not None:
            output["logit_bias"] = self._published(self.logit_bias)
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
        shared = {
            "stop_early": stop_early,
            "normalize_intermediates": normalize_intermediates,
            "intermediates_only": intermediates_only,
        }
        output: dict[str, Any] = {}
        if image is not None:
            tower = self._image_tower()
            output |= tower.forward_intermediates(
                self._image_input(image, tower),
                indices=image_indices,
                output_fmt=image_output_fmt,
                output_extra_tokens=image_output_extra_tokens,
                **shared,
            )
        if text is not None:
            tower = self._text_tower()
            output |= tower.forward_intermediates(
                self._token_ids(text, tower),
                indices=text_indices,
                output_fmt=text_output_fmt,
                output_extra_tokens=text_output_extra_tokens,
                **shared,
            )
        if normalize:
            for key in ("image_features", "text_features"):
                if key in output:
                    output[key] = F.normalize(output[key], dim=-1)
        if output_logits:
            output["image_logits"], output["text_logits"] = self._logits(
                output["image_features"], output["text_features"]
            )
        if output_logit_scale_bias:
            output["logit_scale"] = self._published(self.logit_scale.exp())
            if self.logit_bias is not None:
                output["logit_bias"] = self._published(self.logit_bias)
        return output

    @checked
    def lock_image_tower(self, unlocked_groups: int = 0, freeze_bn_stats: bool = False) -> None:
        """Freeze the image tower but for its last groups (LiT, Zhai et al. 2022).

        Args:
            unlocked_groups: how many layer groups, counted from the output, stay trainable.
            freeze_bn_stats: keep the running statistics of locked batch norms.
        """
        self._image_tower().lock(unlocked_groups, freeze_bn_stats=freeze_bn_stats)

    @checked
    def lock_text_tower(self, unlocked_layers: int = 0, freeze_layer_norm: bool = True) -> None:
        """Freeze the text tower but for its last groups.

        Args:
            unlocked_layers: how many layer groups, counted from the output, stay trainable.
            freeze_layer_norm: False leaves the norms trainable everywhere.
        """
        self._text_tower().lock(unlocked_layers, freeze_norms=freeze_layer_norm)

    @checked
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations of both towers in the backward pass instead of keeping them.

        Raises:
            CapabilityError: a tower does not claim `gradient-checkpointing`; nothing is changed then.
        """
        done: list[VisionTower | TextTower] = []
        try:
            for tower in self._towers().values():
                tower.set_grad_checkpointing(enable)
                done.append(tower)
        except Exception:
            for tower in done:
                tower.set_grad_checkpointing(not enable)
            raise

    @checked
    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode.

        Raises:
            InputError: the model was optimized for inference, and cannot be trained.
        """
        if mode:
            self._refuse_if_optimized("trained")
        return super().train(mode)

    @checked
    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Make all parameters trainable, or none; an `InputError` as in `train`."""
        if requires_grad:
            self._refuse_if_optimized("trained")
        return super().requires_grad_(requires_grad)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Return the weights.

        Raises:
            InputError: the model was optimized for inference: its weights are no longer those of the architecture.
        """
        self._refuse_if_optimized("saved")
        return cast("Any", super().state_dict(*args, **kwargs))

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Take weights; an `InputError` as in `state_dict`."""
        self._refuse_if_optimized("given other weights")
        return super().load_state_dict(*args, **kwargs)

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        self._refuse_if_optimized("moved or cast")  # its copies of the weights would stay behind
        return super()._apply(*args, **kwargs)  # pyright: ignore[reportUnknownMemberType]

    def _refuse_if_optimized(self, what: str) -> None:
        if self.optimizations is not None:
            raise InputError(
                f'a model built with optimize="inference" cannot be {what}: its weights are merged and packed for '
                "this machine; build it without optimize=, or with the device and dtype that you want"
            )

    def no_weight_decay(self) -> set[str]:
        """Return the names of parameters that optimizers should not decay, beyond biases and norms."""
        return {f"{side}.{name}" for side, tower in self._towers().items() for name in tower.no_weight_decay()}

    def own_state_dict(self) -> dict[str, Tensor]:
        """Return the state by the names of `named_parameters()` and `named_buffers()`; every model loads it too.

        `set_model_state_dict` of torch needs it to hand out weights with `broadcast_from_rank0`: it asks each process
        for tensors by these names, and drops what comes by published ones.
        """
        self._refuse_if_optimized("saved")
        return own_state_dict(self)

    @staticmethod
    def own_names() -> AbstractContextManager[None]:
        """Return a block in which `state_dict` gives the names and shapes of `named_parameters()`.

        It is for libraries that take the one for the other, such as accelerate's offloading and dispatching.
        """
        return own_names()

    @checked
    def takes(self, key: str) -> bool:
        """Tell whether a key of a whole model's state dict concerns this model, which may lack a tower."""
        if key.startswith("visual."):
            return self.visual is not None
        return self.text is not None or key in ("logit_scale", "logit_bias")

    def _recording(self, part: nn.Module, *inputs: Any) -> AbstractContextManager[None]:
        """Return a block in which gradients of `inputs` of a part of the model are recorded, or not.

        A model in evaluation mode that is given pictures and strings is being used, and should cost no graph. But where
        some parameters are frozen and others are not, as with adapters, somebody has chosen what to train.
        """
        if not torch.is_grad_enabled() or part.training or any(map(_is_prepared, inputs)):
            return nullcontext()
        trained = {parameter.requires_grad for parameter in self.parameters()}
        return nullcontext() if len(trained) > 1 else torch.no_grad()

    def _towers(self) -> dict[str, VisionTower | TextTower]:
        return {name: tower for name, tower in (("visual", self.visual), ("text", self.text)) if tower is not None}

    def _image_tower(self) -> VisionTower:
        if self.visual is None:
            raise InputError("this model was built without its image tower; add 'image' to towers")
        return self.visual

    def _text_tower(self) -> TextTower:
        if self.text is None:
            raise InputError("this model was built without its text tower; add 'text' to towers")
        return self.text

    def _logits(self, image_features: Tensor, text_features: Tensor) -> tuple[Tensor, Tensor]:
        scaled = self.logit_scale.exp() * image_features  # float32 where the scale is, beside features in half
        logits = scaled @ text_features.to(scaled.dtype).T
        if self.logit_bias is not None:
            logits = logits + self.logit_bias
        return logits, logits.T

    def _image_input(self, image: Any, tower: VisionTower) -> Any:
        """Return what the tower is called with: images `[B, C, H, W]` or a patch batch, checked."""
        if is_symbolic(image):
            return image.to(matrix_dtype(tower, image.dtype))
        if is_raw(image) or not isinstance(image, Tensor):
            if not isinstance(image, Mapping):
                image = moved(self._pictures(image), device_of(tower, self.logit_scale))
            if isinstance(image, Mapping):
                return checked_patches(cast("Mapping[str, Any]", image), tower)
        check_image(image, tower)
        return image.to(matrix_dtype(tower, image.dtype))

    def _pictures(self, images: Any) -> Tensor | PatchBatch:
        """Preprocess a picture or a list of pictures into a batch; a list may also hold what was prepared before."""
        if self.preprocess is None:
            found = f"raw pixels {images.dtype}" if isinstance(images, Tensor) else type(images).__name__
            raise InputError(
                f"expected a preprocessed image tensor [B, C, H, W], found {found}: this model has no "
                "preprocessing; build it with zoo.build, or set model.preprocess"
            )
        if isinstance(images, Tensor):
            return self._prepared(images if images.ndim > 3 else [images])
        pictures = cast("Sequence[Any]", images) if isinstance(images, list | tuple) else [images]
        if pictures and all(isinstance(one, Mapping) for one in pictures):
            return self.preprocess.collate(pictures)
        tensors = [one for one in pictures if isinstance(one, Tensor) and not is_raw(one)]
        if not tensors or len(tensors) < len(pictures):
            return self._prepared(pictures)
        for index, one in enumerate(tensors):
            if one.shape != tensors[0].shape:
                shapes = f"images[0] is {list(tensors[0].shape)} and images[{index}] is {list(one.shape)}"
                raise InputError(f"expected image tensors of one shape, but {shapes}; preprocess them all alike")
        return torch.stack(tensors)

    def _prepared(self, pictures: Any) -> Tensor | PatchBatch:
        """Return a batch that the model's own preprocessing made."""
        preprocess = cast("Preprocessor", self.preprocess)
        batch = preprocess.batch(pictures)
        check_prepared(batch, len(pictures), preprocess)
        return batch

    def _token_ids(self, text: Any, tower: TextTower, overflow: Overflow = "warn") -> Tensor:
        if is_symbolic(text):
            return text
        if isinstance(text, Tensor):
            return self._checked_ids(text, tower)
        if self.tokenizer is None:
            raise InputError(
                f"expected token ids [B, L], found {type(text).__name__}: this model has no tokenizer; "
                "build it with zoo.build, or set model.tokenizer"
            )
        return self._fitting(self.tokenizer(text, overflow=overflow), tower, self.tokenizer)

    def _fitting(self, ids: Tensor, tower: TextTower, tokenizer: Tokenizer) -> Tensor:
        """Return ids that a tokenizer gave, where the tower is, after both were held to each other."""
        check_tokenizer(tokenizer, tower, self._config())
        check_tokenized(ids, tokenizer)
        return self._checked_ids(ids.to(device_of(tower, self.logit_scale)), tower)

    def _checked_ids(self, ids: Tensor, tower: TextTower) -> Tensor:
        check_token_ids(ids, tower)
        config = self._config()
        if config is not None and not torch.compiler.is_compiling():
            check_largest_ids(ids, config.text.largest_id(config.tokenizer.token_ids()))
        return ids

    def _config(self) -> ModelConfig | None:
        return self.__dict__.get("config")

    def _published(self, value: Tensor) -> Tensor:
        """Return a logit scale or bias in the shape that callers and checkpoints see; inside, FSDP needs `[1]`."""
        return value.reshape((1,) if self.nonscalar_logit_scale else ())  # functional_call may bring either

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)  # pyright: ignore[reportUnknownMemberType]
        for name in ("logit_scale", "logit_bias"):
            value = destination.get(prefix + name)
            if value is not None and publishes() and not keep_vars and not is_sharded(value):
                destination[prefix + name] = self._published(value)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for name in ("logit_scale", "logit_bias"):
            ours, theirs = getattr(self, name), state_dict.get(prefix + name)
            if ours is None or theirs is None:
                continue
            if theirs.numel() == 1:
                state_dict[prefix + name] = sharded_like(ours, theirs.reshape(ours.shape))  # published: [] or [1]
            else:  # torch takes the first of several for a scalar
                found = f"found shape {list(theirs.shape)}"
                args[-1].append(f"size mismatch for {prefix}{name}: expected one value, {found}.")
        super()._load_from_state_dict(state_dict, prefix, *args)  # pyright: ignore[reportUnknownMemberType]


def _is_prepared(value: Any) -> bool:
    """Tell what a tower takes, tensors and patches, from what is made into that: pictures, raw pixels and strings."""
    first: Any = cast("Any", value)[0] if isinstance(value, list | tuple) and value else cast("Any", value)
    return isinstance(first, Mapping) or is_symbolic(first) or (isinstance(first, Tensor) and not is_raw(first))


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
