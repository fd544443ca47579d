"""The dual encoder and what assembles it."""
