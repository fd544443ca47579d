"""What tests share: references, tiny models, folders as others publish them, and servers that stand in."""
