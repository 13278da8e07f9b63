"""One machine of the mesh: `python -m node`."""
