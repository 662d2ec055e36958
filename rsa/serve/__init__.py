"""`rsa serve`: models and Markovian RSA behind the interfaces that clients speak."""
