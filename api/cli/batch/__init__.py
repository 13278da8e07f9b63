"""`queztl map`: names of outputs, journal, progress and the run itself."""
