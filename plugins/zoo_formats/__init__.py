"""Checkpoint formats of the field."""
