"""Stages, keys, plans, runners, commits: what turns a recipe into jobs."""
