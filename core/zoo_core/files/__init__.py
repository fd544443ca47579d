"""Atomic writes, digests and the user's folders."""
