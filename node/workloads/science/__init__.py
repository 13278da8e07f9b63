"""Monte Carlo, sparse and GPU work behind `scientific_computing`."""
