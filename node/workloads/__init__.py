"""The implementations of the kinds, one file per kind, which only worker processes import."""
