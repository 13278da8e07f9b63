"""Where a node connects the REST bridge and the scaler to its own parts."""
