"""Captions to token ids: tokenizers, cleaning, truncation."""
