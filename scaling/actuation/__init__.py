"""Carries out decisions: orders are written, nodes are launched, drained and ended."""
