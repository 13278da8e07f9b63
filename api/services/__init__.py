"""The interfaces through which the REST bridge reaches the mesh and the scaler."""
