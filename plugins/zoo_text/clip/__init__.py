"""Text transformer of CLIP."""
