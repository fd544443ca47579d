"""CLIP's modified ResNet with attention pooling (He et al. 2016; Radford et al. 2021)."""
