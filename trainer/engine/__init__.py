"""The one DeepSpeed loop: it sums components of a loss, steps, saves and continues."""
