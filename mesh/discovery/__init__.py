"""How a node finds its mesh: mDNS announcements, known addresses, and creating a mesh when there is none."""
