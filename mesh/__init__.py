"""What nodes and clients share: the wire messages, the bus, and the parts of the mesh built on it."""
