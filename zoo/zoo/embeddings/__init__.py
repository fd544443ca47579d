"""Embedding jobs and sets."""
