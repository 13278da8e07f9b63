"""Which nodes run a bus server, and how the cluster of bus servers grows, heals and shrinks."""
