"""Studies: one JSON file to many runs and their comparison; planned, run, stopped and continued."""
