"""What the scaler keeps in the mesh: settings, orders, spending and the memory of the next decision."""
