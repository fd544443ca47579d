"""Text encoders and tokenizers of the Hugging Face ecosystem, and OpenAI's tiktoken encodings."""
