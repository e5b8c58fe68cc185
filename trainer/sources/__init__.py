"""Sources by name: samples of committed datasets by position (see `trainer.protocols`)."""
