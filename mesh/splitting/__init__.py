"""Splits one large job into many tasks and merges their results."""
