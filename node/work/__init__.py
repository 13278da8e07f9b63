"""The path of a task through a node: pull, admit, run, settle."""
