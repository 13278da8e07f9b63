"""`queztl doctor`: collects facts about this machine and explains what is wrong."""
