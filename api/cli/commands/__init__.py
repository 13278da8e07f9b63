"""The commands of `queztl`: a file each, with `add(parser)` and `run(args, out)`."""
