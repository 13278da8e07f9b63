"""What a task of each kind takes and needs: the contract; node/workloads holds the work itself."""
