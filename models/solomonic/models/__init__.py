"""Networks with an explicit memory, their checkpoints and their training."""
