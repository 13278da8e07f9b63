"""What two nodes must agree on, and the bus between them."""
