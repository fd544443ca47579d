"""Data sets of images and captions for training."""
