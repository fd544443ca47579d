"""Layouts of checkpoints of transformers (CLIP and SigLIP), big_vision, OpenAI and Apple's MobileCLIP."""
