"""Markovian RSA as a part of other programs. Entry points of theirs alone lead here, so that each module of this room
imports its host, which is there when the module is."""
