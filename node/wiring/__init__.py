"""Where a node connects the REST bridge, the scaler and the leader to its other parts."""
