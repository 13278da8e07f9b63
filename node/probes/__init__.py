"""Probes for the hardware and the software of this machine."""
