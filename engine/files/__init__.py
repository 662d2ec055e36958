"""The files of a model: where they are, what is in them, and writing them safely."""
