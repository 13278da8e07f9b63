"""The REST bridge of a node, and the `queztl` command line."""
