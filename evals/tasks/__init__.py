"""Synthetic tasks with unlimited problems, exact checkers and a train/test split fixed by hash."""
