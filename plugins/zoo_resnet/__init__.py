"""CLIP's modified ResNet with attention pooling."""
