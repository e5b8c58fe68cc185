"""The page about a training run: one HTML file, no script, no request."""
