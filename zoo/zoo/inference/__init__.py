"""Faster inference, and profiles of it."""
