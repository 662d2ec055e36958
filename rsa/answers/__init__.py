"""What an answer is, and when two are the same."""
