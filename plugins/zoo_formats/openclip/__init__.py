"""Folders and configs of open_clip."""
