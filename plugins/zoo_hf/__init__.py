"""Text encoders and tokenizers of the Hugging Face ecosystem."""
