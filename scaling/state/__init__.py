"""What the scaler keeps in the mesh: settings, orders and the memory of the next decision."""
