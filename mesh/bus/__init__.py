"""The NATS JetStream bus: its server, its topology, and the one client that talks to it."""
