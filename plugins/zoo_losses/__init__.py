"""Losses over image-text pairs: contrastive, sigmoid, with captions, with a teacher; exact across processes."""
