"""CLIP's text transformer and its byte-pair tokenizer."""
