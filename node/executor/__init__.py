"""Worker processes: how a node runs jobs outside its own process."""
