"""Depth maps for zoo: a modality of its own."""
