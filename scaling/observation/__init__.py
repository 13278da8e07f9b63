"""What the scaler sees: lanes, nodes, orders, measured throughput and spend."""
