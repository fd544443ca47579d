"""Checkpoints of a run, in torch's distributed format."""
