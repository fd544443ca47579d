"""The vision transformer (Dosovitskiy et al. 2020, as CLIP uses it)."""
