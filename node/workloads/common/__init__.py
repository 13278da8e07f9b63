"""Helpers that several workloads share."""
