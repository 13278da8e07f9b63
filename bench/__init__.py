"""Benchmarks of the machine and the mesh: `python -m bench`."""
