"""Data sets of images and captions: tar shards, tables, folders, Hugging Face data sets and streams."""
