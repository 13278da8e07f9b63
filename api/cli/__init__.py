"""`queztl`: the mesh from the command line."""
