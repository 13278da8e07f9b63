"""Which nodes are in the mesh and which are alive."""
