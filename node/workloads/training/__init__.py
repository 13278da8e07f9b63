"""Models, data and state behind `ml_training`."""
