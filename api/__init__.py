"""The REST bridge and the queztl command."""
