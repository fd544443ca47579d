"""Saved models: the folder that `zoo.save` writes."""
