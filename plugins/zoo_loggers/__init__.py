"""Callbacks that show a run in TensorBoard, Weights & Biases or Trackio."""
