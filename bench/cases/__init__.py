"""The single benchmarks, one file each."""
