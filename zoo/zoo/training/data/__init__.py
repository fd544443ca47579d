"""Data of training: its order, and how samples become batches."""
