"""What papers claim, and by which records, numbers and rules it is judged."""
