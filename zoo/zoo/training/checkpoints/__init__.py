"""Checkpoints of a run: torch's distributed format, whole or not there, under one set of names and shapes."""
