"""Many nodes in few processes: what `python -m bench swarm` measures with."""
