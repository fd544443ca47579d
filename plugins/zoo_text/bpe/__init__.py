"""Byte-pair tokenizer of CLIP."""
