"""The NATS JetStream bus: its server, and the client that alone knows its protocol."""
