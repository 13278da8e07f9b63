"""The back-test: what each way of scaling would have cost on a recorded demand, with the decisions of a real mesh."""
