"""What of a sweep is missing, and getting it done."""
