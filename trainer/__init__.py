"""What learns. In this version: streaming committed datasets to a training loop."""
