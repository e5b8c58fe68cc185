"""Beam transforms over units of work and Arrow tables."""
