"""The contracts of zoo: what a tower, tokenizer, preprocessor, loss and model are, and how plugins supply them.

Importing this package imports nothing else. torch is imported by `interfaces`, `images`, `models`, `nn`, `testing` and
`checkpoints.finite`, and by no other module when it is imported.
"""
