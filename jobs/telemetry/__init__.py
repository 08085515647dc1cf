"""What a job tells while it works: events, metrics, progress."""
