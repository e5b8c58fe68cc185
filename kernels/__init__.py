"""Compiled kernels, each beside a slow reference. Importing this package loads no compiler."""
