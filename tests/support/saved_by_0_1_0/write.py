"""Writer of the folders beside it.

They hold three tiny models and a set of embeddings, saved by zoo 0.1.0. It ran once, with that version: `python write.py`. Later versions read what it wrote and never write it anew.
"""

from __future__ import annotations

import json
import string
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import tokenizers
import torch
from PIL import Image
from tokenizers import models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

import zoo

FOLDER = Path(__file__).parent
CAPTIONS = ["a cat", "Two dogs &amp; a cat", "snow"]
IMAGE_SIZE = (40, 32)

VISION = {"tower": "vit", "image_size": 12, "patch_size": 4, "width": 8, "head_width": 4, "layers": 1}
CLIP: dict[str, Any] = {
    "model": "clip",
    "embed_dim": 8,
    "vision": VISION,
    "text": {
        "tower": "clip-transformer",
        "context_length": 16,
        "vocab_size": 540,
        "width": 8,
        "heads": 2,
        "layers": 1,
        "activation": "quick_gelu",
    },
    "tokenizer": {"type": "clip-bpe", "vocab_size": 540},
    "preprocess": {"type": "image", "engine": "pil"},
}
COCA = CLIP | {
    "model": "coca",
    "vision": VISION | {"attentional_pool": "single", "attn_pooler_queries": 3, "attn_pooler_heads": 2},
    "text": CLIP["text"] | {"class_token": True, "pool_type": "last", "pad_id": 0},
    "multimodal": {"width": 8, "heads": 2, "layers": 1},
}


def hugging_face(tokenizer: Path) -> dict[str, Any]:
    """Return the architecture of a sigmoid model whose text tower and tokenizer are of Hugging Face."""
    encoder = {
        "model_type": "bert",
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "max_position_embeddings": 20,
        "vocab_size": 40,
    }
    return {
        "model": "custom-text-clip",
        "embed_dim": 8,
        "init_logit_bias": -2.5,
        "vision": VISION,
        "text": {"tower": "hf-text", "config": encoder, "context_length": 16, "vocab_size": 40, "pad_id": 0},
        "tokenizer": {"type": "hf", "name": str(tokenizer), "vocab_size": 40, "pad_id": 0},
        "preprocess": {"type": "image"},
    }


def write_tokenizer(folder: Path) -> Path:
    """Write a WordPiece tokenizer of 40 tokens, as BERT has it."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = ["a", "photo", "of", "cat", "two", "dog", "in", "the", "snow", "##s"]
    vocabulary = {token: number for number, token in enumerate([*special, *words, *string.ascii_lowercase[1:]])}
    tokenizer = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(token, special.index(token)) for token in ("[CLS]", "[SEP]")]
    )
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    return folder


def gradient() -> Image.Image:
    """Return the image that the features are of: colours that rise along each side."""
    width, height = IMAGE_SIZE
    image = Image.new("RGB", IMAGE_SIZE)
    image.putdata([(x * 6, y * 7, (x * y) % 256) for y in range(height) for x in range(width)])
    return image


def randomize(model: torch.nn.Module) -> None:
    """Give every parameter values at random, so that each of them shows in the features."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "logit" not in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)


def features(model: Any) -> dict[str, Any]:
    """Return what the model makes of the image and the captions."""
    return {
        "image": model.encode_image(gradient()).tolist(),
        "text": model.encode_text(CAPTIONS).tolist(),
        "probabilities": model.probabilities(gradient(), CAPTIONS).tolist(),
    }


def main() -> None:
    """Write all folders."""
    assert zoo.__version__ == "0.1.0"
    recorded = {}
    with tempfile.TemporaryDirectory() as scratch:
        architectures = {"clip": CLIP, "coca": COCA, "custom-text-clip": hugging_face(write_tokenizer(Path(scratch)))}
        for name, architecture in architectures.items():
            model = zoo.build(architecture).eval()
            randomize(model)
            zoo.save(model, FOLDER / name)
            recorded[name] = features(model)
    (FOLDER / "features.json").write_text(json.dumps(recorded, indent=1) + "\n")
    command = [sys.executable, "-m", "zoo", "embed", "--text", "-", "--model", "clip", "--out", "embeddings"]
    subprocess.run(command, cwd=FOLDER, input="\n".join(CAPTIONS), text=True, check=True)


if __name__ == "__main__":
    main()
