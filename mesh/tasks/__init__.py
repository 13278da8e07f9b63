"""The life of a task outside its worker: validation, submission, records, results, checkpoints, dead letters."""
