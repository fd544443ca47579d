"""Modules from configs: the meta device and weights."""
