"""The values of capacity: nodes, pools, offers, decisions and the settings. No logic of the scaler."""
