"""The autoscaler: capacity that follows demand."""
