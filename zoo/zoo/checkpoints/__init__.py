"""Checkpoint files: opened, matched to a model, loaded."""
