"""A convolutional vision tower for zoo."""
