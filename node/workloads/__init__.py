"""The work itself, one file a kind, run only inside worker processes."""
