"""Modules of configs, on the meta device."""
