"""What a command of `queztl` works on: its arguments, the task it submits, the state of the mesh."""
