"""What a client reads from: the newest publication, its parts, and reads that fail fast."""
