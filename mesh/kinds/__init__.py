"""The contract of each kind: its payload and requirements. node/workloads holds the implementations."""
