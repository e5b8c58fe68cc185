"""Fetching: the pictures behind URLs, in units of whole hosts."""
