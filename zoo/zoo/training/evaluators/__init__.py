"""Evaluators that come with zoo: zero-shot classification and retrieval."""
