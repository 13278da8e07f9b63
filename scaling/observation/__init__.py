"""What a decision is based on: lanes, nodes, orders, offers and measured throughput, read from the mesh each cycle."""
