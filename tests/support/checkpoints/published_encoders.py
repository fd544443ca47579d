"""Text encoders that open_clip's architectures name on the Hub, as their configs are published."""

from __future__ import annotations

from typing import Any

import open_clip
import transformers

# What the Hub serves as config.json of the models that these architectures are made of, as far as it has to do with
# parameters.
ROBERTA = {"model_type": "roberta", "vocab_size": 50_265, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072, "max_position_embeddings": 514, "type_vocab_size": 1, "pad_token_id": 1, "layer_norm_eps": 1e-5}  # fmt: skip
XLM = ROBERTA | {"model_type": "xlm-roberta", "vocab_size": 250_002}
XLM_LARGE = XLM | {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
MT5 = {"model_type": "mt5", "vocab_size": 250_112, "d_model": 768, "d_kv": 64, "d_ff": 2048, "num_layers": 12, "num_decoder_layers": 12, "num_heads": 12, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "pad_token_id": 0, "layer_norm_epsilon": 1e-6, "dropout_rate": 0.1}  # fmt: skip
MT5_XL = MT5 | {"d_model": 2048, "d_ff": 5120, "num_layers": 24, "num_decoder_layers": 24, "num_heads": 32}
NLLB = {"model_type": "m2m_100", "vocab_size": 256_206, "d_model": 1024, "encoder_layers": 12, "decoder_layers": 12, "encoder_attention_heads": 16, "decoder_attention_heads": 16, "encoder_ffn_dim": 4096, "decoder_ffn_dim": 4096, "encoder_layerdrop": 0, "max_position_embeddings": 1024, "scale_embedding": True, "pad_token_id": 1}  # fmt: skip
NLLB_LARGE = NLLB | {"encoder_layers": 24, "decoder_layers": 24, "encoder_ffn_dim": 8192, "decoder_ffn_dim": 8192}
PUBLISHED = {
    "roberta-ViT-B-32": ROBERTA,
    "xlm-roberta-base-ViT-B-32": XLM,
    "xlm-roberta-large-ViT-H-14": XLM_LARGE,
    "mt5-base-ViT-B-32": MT5,
    "mt5-xl-ViT-H-14": MT5_XL,
    "nllb-clip-base": NLLB,
    "nllb-clip-large": NLLB_LARGE,
}


class HubConfigs:
    """`AutoConfig` for a machine without a network: what the Hub serves for the encoders that the peer names."""

    @staticmethod
    def from_pretrained(name: str, **_: Any) -> Any:

        theirs = {open_clip.get_model_config(one)["text_cfg"]["hf_model_name"]: PUBLISHED[one] for one in PUBLISHED}  # pyright: ignore[reportOptionalSubscript]
        known = theirs | {"roberta-base": ROBERTA}
        return transformers.AutoConfig.for_model(**known[name])
