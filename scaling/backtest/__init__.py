"""What each way of scaling would have cost on a demand that was: the very same decisions, replayed."""
