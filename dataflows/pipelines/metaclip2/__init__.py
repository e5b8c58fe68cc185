"""MetaCLIP 2 as a graph of jobs."""
