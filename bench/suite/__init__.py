"""The benchmark suite: the mission's eight workloads, measured by one protocol. See bench/METHODOLOGY.md."""
