"""Zero-shot classification, calibration and retrieval metrics."""
