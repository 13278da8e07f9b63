"""Where nodes come from: one file per provider, all behind the interface in `base.py`."""
