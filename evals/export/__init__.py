"""Results of an evaluation in formats that others collect and cite: `rsa eval export`."""
