"""Readers of JSON and YAML files, with bounds and line numbers."""

from zoo_core.documents.document import (
    ENCODER_CONFIG,
    TOKENIZER_CONFIG,
    Bounds,
    Document,
    KeyPath,
    Mark,
    expect_file,
    read_text,
)

__all__ = [
    "ENCODER_CONFIG",
    "TOKENIZER_CONFIG",
    "Bounds",
    "Document",
    "KeyPath",
    "Mark",
    "expect_file",
    "read_text",
]
