"""What a node says about itself: capabilities, measured speeds, its record and its banner."""
