"""CoCa: contrastive captioners are image-text foundation models (Yu et al. 2022).

The text tower reads the caption without the image, for the contrastive feature; the decoder goes on from its tokens
and looks at the image. One pass through the text tower serves both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo_coca.config import CocaConfig, GenerationConfig, MultimodalConfig, decoder_rules
from zoo_coca.decoder import CaptionSteps, MultimodalDecoder
from zoo_coca.generation import Prompts, Vocabulary, search
from zoo_core.boundary import checked
from zoo_core.config import TextTowerConfig, VisionTowerConfig
from zoo_core.config.dual_encoder import ConstructorArguments
from zoo_core.errors import CapabilityError, ConfigError, InputError, Problem, describe
from zoo_core.models.build_tower import build_tower
from zoo_core.models.constructors import low_precision, parse_towers
from zoo_core.models.dual_encoder import LOGIT_SCALE, DualEncoder
from zoo_core.models.features import tokens_of
from zoo_core.nn.eval_mode import evaluating
from zoo_core.nn.precision import cast_matrices
from zoo_core.registry import Registry, default_registry
from zoo_core.text.tokenizer import Tokenizer, checked_texts


class CoCa(DualEncoder):
    """Two towers, a logit scale and a decoder.

    Args:
        embed_dim: width of the joint embedding space.
        multimodal_cfg: config of the decoder, or a mapping.
        text_cfg: config of a causal text tower that gives tokens, or a mapping (its `tower` key picks which;
            `clip-transformer` where it has none).
        vision_cfg: config of an image tower that gives tokens, or a mapping (`vit` where it names none).
        quick_gelu: build all three with the activation `quick_gelu`, as CLIP does.
        init_logit_scale: initial logarithm of the factor between cosines and logits.
        init_logit_bias: initial offset of the logits; no such parameter where None.
        nonscalar_logit_scale: give scale and bias the shape `[1]` in outputs and state dicts.
        cast_dtype: float16 or bfloat16 for the matrix products; norms and logit scale stay in float32.
        pad_id: id of the padding that a class token does not look at, where `text_cfg` names none.
        text_sees_ahead: accept a text tower whose tokens depend on later ones; it cannot write captions.

    Raises:
        ConfigError: a config is wrong, or the parts do not go together; every problem is named.
    """

    text_decoder: MultimodalDecoder | None

    def __init__(
        self,
        embed_dim: int,
        multimodal_cfg: MultimodalConfig | Mapping[str, Any],
        text_cfg: TextTowerConfig | Mapping[str, Any],
        vision_cfg: VisionTowerConfig | Mapping[str, Any],
        quick_gelu: bool = False,
        init_logit_scale: float = LOGIT_SCALE,
        init_logit_bias: float | None = None,
        nonscalar_logit_scale: bool = False,
        cast_dtype: torch.dtype | None = None,
        pad_id: int = 0,
        text_sees_ahead: bool = False,
    ) -> None:
        arguments = ConstructorArguments(
            embed_dim=embed_dim,
            quick_gelu=quick_gelu,
            init_logit_scale=init_logit_scale,
            init_logit_bias=init_logit_bias,
            nonscalar_logit_scale=nonscalar_logit_scale,
        )
        for name, value, kind in (("pad_id", pad_id, int), ("text_sees_ahead", text_sees_ahead, bool)):
            if type(value) is not kind:
                raise ConfigError(Problem(f"expected {kind.__name__}, found {describe(value)}", name, "CoCa"))
        half = low_precision(cast_dtype)
        if isinstance(text_cfg, Mapping) and text_cfg.get("class_token"):
            text_cfg = {"pad_id": pad_id, **text_cfg}
        vision, text = parse_towers(
            vision_cfg, text_cfg, vision="vit", text="clip-transformer", quick_gelu=arguments.quick_gelu
        )
        keys = multimodal_cfg.data() if isinstance(multimodal_cfg, MultimodalConfig) else multimodal_cfg
        decoder = MultimodalConfig.parse(
            {**keys, "activation": "quick_gelu"} if quick_gelu and isinstance(keys, Mapping) else keys
        )
        _check_parts(decoder, vision, text, arguments.embed_dim, text_sees_ahead, pad_id)
        registry = default_registry()
        super().__init__(
            {
                "image": build_tower(registry, vision, arguments.embed_dim),
                "text": build_tower(registry, text, arguments.embed_dim),
            },
            init_logit_scale=arguments.init_logit_scale,
            init_logit_bias=arguments.init_logit_bias,
            nonscalar_logit_scale=arguments.nonscalar_logit_scale,
            output_dict=True,
        )
        self.text_decoder = MultimodalDecoder(decoder, vocab_size=text.vocab_size)
        if half is not None:
            cast_matrices(self, half)

    @classmethod
    def from_config(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, config: CocaConfig, *, towers: Sequence[str], registry: Registry, **options: Any
    ) -> Self:
        """Build the `towers` of an architecture, and the decoder if both are asked for."""
        model = super().from_config(config, towers=towers, registry=registry, output_dict=True, **options)
        vocab_size = config.text.vocab_size
        model.text_decoder = MultimodalDecoder(config.multimodal, vocab_size=vocab_size) if model.is_whole else None
        return model

    @property
    def pad_id(self) -> int | None:
        """Id of the padding that the text tower hides; None where it hides none."""
        return self._tower("text").pad_id

    def forward(self, image: Any = None, text: Any = None) -> dict[str, Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return unit-norm features, the exponentiated logit scale, and logits for each token of the captions.

        Args:
            image: as in `encode_image`; features are None where this is None.
            text: as in `encode_text`; features are None where this is None.

        Returns:
            `image_features`, `text_features`, `logit_scale` and, if the model has one, `logit_bias`. Where there are
            both, also `logits` `[B, L - 1, V]`, and the int64 `labels` `[B, L - 1]` that they should predict: each
            token of the text but the first.

        Raises:
            InputError: an input does not fit, or there are not as many texts as images.
        """
        output: dict[str, Any] = {"image_features": None, "text_features": None}
        image_tokens = text_tokens = None
        if image is not None:
            output["image_features"], image_tokens = self._encode_image(image)
        if text is not None:
            ids = self._inputs("text", text)
            features, text_tokens = tokens_of(self._tower("text"), ids)
            output["text_features"] = F.normalize(features, dim=-1)
            if image_tokens is not None and text_tokens is not None:
                images, texts = image_tokens.shape[0], text_tokens.shape[0]
                if images != texts:
                    raise InputError(f"expected one text for each image, found {images} images and {texts} texts")
                output["logits"] = self._decoder()(image_tokens, text_tokens[:, :-1])
                output["labels"] = ids[:, 1:].long()
        return output | self._scale_and_bias()

    @torch.no_grad()
    @checked
    def generate(
        self,
        image: Any,
        text: Any = None,
        *,
        generator: torch.Generator | None = None,
        vocabulary: Vocabulary | None = None,
        **options: Any,
    ) -> Tensor:
        """Write captions of images. The model is in evaluation mode meanwhile.

        Args:
            image: as in `encode_image`.
            text: what captions begin with: a string for all, a string for each image, or int ids `[B, P]` or `[P]`
                that begin with the start of text and are read up to its end or the padding. Nothing where None.
            generator: random numbers of the strategies `top_k` and `top_p`; torch's global ones where None.
            vocabulary: start, end and padding; those of the model's tokenizer where None.
            options: those of `GenerationConfig`: `strategy`, `max_length`, `min_length`, `temperature`, `top_k`,
                `top_p`, `num_beams`, `num_beam_groups`, `diversity_penalty`, `length_penalty`, `repetition_penalty`.

        Returns:
            int64 ids `[B, L]`, L at most `max_length`: the start of text, the prompt, what was found, the end of
            text, and padding. A caption that was cut has no end of text.

        Raises:
            CapabilityError: the text tower looks ahead.
            ConfigError: an option is unknown, out of range, or not read by the strategy.
            InputError: an input does not fit, or `max_length` exceeds the context length.
        """
        parsed = GenerationConfig.parse(options)
        tower, decoder = self._tower("text"), self._decoder()
        config = self.__dict__.get("config")
        if config is not None and not config.text.supports_kv_cache():
            raise CapabilityError(
                f"this model cannot write captions: tokens of its text tower '{config.text.component}' depend on "
                "later ones, so its decoder was trained with the captions before its eyes; choose another CoCa"
            )
        if parsed.max_length > tower.context_length:
            raise InputError(f"max_length = {parsed.max_length} exceeds the context length {tower.context_length}")
        vocabulary = vocabulary or Vocabulary.of(self._own_tokenizer())
        _check_vocabulary(vocabulary, tower.vocab_size)
        with evaluating(self):
            image_tokens = self._encode_image(image)[1]
            prompts = self._prompts(text, image_tokens, vocabulary)
            return search(CaptionSteps(tower, decoder, image_tokens), prompts, vocabulary, parsed, generator)

    def caption(self, image: Any, text: Any = None, **options: Any) -> list[str]:
        """Write captions of images as strings; the arguments are those of `generate`."""
        tokenizer = self._own_tokenizer()
        return [tokenizer.decode(row) for row in self.generate(image, text, **options).tolist()]

    @checked
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations of both towers and the decoder in the backward pass instead of keeping them.

        Raises:
            CapabilityError: a tower does not claim `gradient-checkpointing`; nothing is changed then.
        """
        super().set_grad_checkpointing(enable)
        if self.text_decoder is not None:
            self.text_decoder.grad_checkpointing = enable

    @checked
    def accepts_key(self, key: str) -> bool:
        """Tell whether a key of a whole model's state dict concerns this model, which may lack a tower."""
        return self.text_decoder is not None if key.startswith("text_decoder.") else super().accepts_key(key)

    def _encode_image(self, image: Any) -> tuple[Tensor, Tensor]:
        features, tokens = tokens_of(self._tower("image"), self._inputs("image", image))
        return F.normalize(features, dim=-1), tokens

    def _decoder(self) -> MultimodalDecoder:
        if self.text_decoder is None:
            raise InputError("captions need the image tower and the text tower; build the model with both")
        return self.text_decoder

    def _own_tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            raise InputError("this model has no tokenizer; build it with zoo.build, or set model.tokenizer")
        return self.tokenizer

    def _prompts(self, text: Any, image_tokens: Tensor, vocabulary: Vocabulary) -> Prompts:
        """Return one prompt for each image."""
        if text is None:
            rows: Sequence[Sequence[int]] = [[vocabulary.sot_id]]
        elif isinstance(text, Tensor):
            if text.ndim not in (1, 2) or text.is_floating_point() or not text.numel():
                raise InputError(f"expected int64 ids [B, P] or [P], found {text.dtype} {list(text.shape)}")
            rows = cast("list[list[int]]", text.tolist() if text.ndim == 2 else [text.tolist()])
        else:
            tokenizer = self._own_tokenizer()
            rows = [[vocabulary.sot_id, *tokenizer.encode(prompt)] for prompt in checked_texts(text)]
        count = image_tokens.shape[0]
        if len(rows) not in (1, count):
            raise InputError(f"expected one prompt, or one for each of {count} images, found {len(rows)}")
        return Prompts.of_rows(rows if len(rows) == count else [*rows] * count, vocabulary, image_tokens.device)


def _check_parts(
    decoder: MultimodalConfig, vision: Any, text: Any, embed_dim: int, text_sees_ahead: bool, pad_id: int
) -> None:
    problems = list(decoder_rules(decoder, vision, text, embed_dim, text_sees_ahead))
    text_pad_id = getattr(text, "pad_id", None)
    if pad_id not in (0, text_pad_id):
        hides = "hides no padding" if text_pad_id is None else f"says {text_pad_id}"
        problems.append(("pad_id", f"is {describe(pad_id)}, but text_cfg {hides}; say it in one place"))
    if problems:
        raise ConfigError([Problem(message, key, "CoCa") for key, message in problems])


def _check_vocabulary(vocabulary: Vocabulary, vocab_size: int) -> None:
    for name in ("sot_id", "eot_id", "pad_id"):
        if not 0 <= (token_id := getattr(vocabulary, name)) < vocab_size:
            raise InputError(f"vocabulary: {name} must be an id from 0 to {vocab_size - 1}, found {token_id}")
