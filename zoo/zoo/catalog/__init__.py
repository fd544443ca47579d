"""Installed architectures and pretrained entries."""
