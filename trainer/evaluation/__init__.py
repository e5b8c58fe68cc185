"""Evaluations by name, with intervals, and readers of the public layouts."""
