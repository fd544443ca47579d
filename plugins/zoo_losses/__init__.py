"""Losses over image-text pairs, exact across processes."""
