"""What to keep and make: the algorithms, as plain functions on Arrow tables.

One folder a system, shared parts beside them. No function here knows of Beam, of files of a run or
of the network; importing the package loads neither Beam nor torch.
"""
