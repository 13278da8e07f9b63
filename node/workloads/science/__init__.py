"""The Monte Carlo, sparse and GPU operations of `scientific_computing`."""
