"""What `queztl` prints: tables, results, errors and exit codes."""
