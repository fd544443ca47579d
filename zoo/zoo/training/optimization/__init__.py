"""Optimizers, parameter groups, learning rates and averages of weights."""
