"""The models, data and checkpoints of `ml_training`."""
