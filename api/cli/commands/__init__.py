"""The commands of `queztl`: one file each, with `add(parser)` and `run(args, out)`; helpers beside them."""
