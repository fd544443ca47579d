"""Tokenizers of OpenAI's byte-pair encodings, as the library tiktoken publishes them."""
