"""CLIP's text transformer, a modern one, and CLIP's byte-pair tokenizer."""
