"""What each way of looking at demand and offers proposes: reactive and predictive say how many, cost and geo which."""
