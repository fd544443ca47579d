"""What is told of a run: its record in a file, callbacks, a progress bar, curves."""
