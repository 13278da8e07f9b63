"""Load forecasts, made from the samples in METRICS and used only where their own back-test beat reactive."""
