"""Claims: the smallest honest experiment for each system, its records and its table."""
