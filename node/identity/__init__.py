"""How a node describes itself: capabilities, measured speeds, record and banner."""
