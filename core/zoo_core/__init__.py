"""The contracts of zoo: what a tower, tokenizer, preprocessor, loss and model are, and how plugins supply them.

Importing this package imports nothing else; every module below stands on its own, and only those that say so
import torch (`interfaces`, `transformer`, `dual_encoder`, `testing`).
"""
