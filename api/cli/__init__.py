"""`queztl`: the command line."""
