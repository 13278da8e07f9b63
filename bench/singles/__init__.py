"""`python -m bench singles`: inputs, the tools of the baseline, timing and checks."""
