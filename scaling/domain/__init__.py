"""The values of capacity: nodes, pools, offers, decisions and settings. All other folders build on them."""
