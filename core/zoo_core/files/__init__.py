"""Atomic writes, digests and the user's folder."""
