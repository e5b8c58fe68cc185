"""Objectives by name: what turns a batch into the components of a loss (see `trainer.protocols`)."""
