"""Small probes that find out what this machine is and has."""
