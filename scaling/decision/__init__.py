"""How much capacity, which and where: pure functions from an observation to a decision."""
