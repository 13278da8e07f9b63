"""Which node should take which task."""
