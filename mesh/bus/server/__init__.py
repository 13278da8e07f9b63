"""The nats-server of a node: its configuration, its processes, and the bootstrap of a new cluster."""
