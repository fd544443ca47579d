"""Files of the Hugging Face Hub, pinned in a lock file."""
