"""Many nodes in few processes, for `python -m bench swarm`."""
