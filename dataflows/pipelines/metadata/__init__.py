"""Metadata: Wikipedia dumps, page views and wordnets to the concept lists of each language."""
