"""How a node finds its mesh: mDNS announcements, known addresses, and founding when there is none."""
