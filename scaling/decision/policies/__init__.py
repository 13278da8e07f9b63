"""The policies: reactive and predictive propose how many nodes, cost and geo choose which."""
