"""Where nodes come from: one file a provider, all behind the seam in `base.py`."""
