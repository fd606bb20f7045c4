"""What predictions are worth: each task's measures with their policy, and bootstrap intervals over patients; no torch."""
