"""Text to tokens: raw text to a committed dataset of token ids."""
