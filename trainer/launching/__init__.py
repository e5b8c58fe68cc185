"""Starting the ranks of a run: one process, several, several hosts, Slurm."""
