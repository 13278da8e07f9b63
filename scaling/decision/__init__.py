"""How many nodes, which offers and where: pure functions from an observation to a decision."""
