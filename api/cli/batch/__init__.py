"""`queztl map`: names, journal, progress and the run itself."""
