"""Gradients of a step: of a batch at once or in chunks, on any number of processes."""
