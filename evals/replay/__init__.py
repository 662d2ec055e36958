"""Recorded runs decided again: with other policies, fewer rounds or fewer candidates, and without a model.

`recording` reads runs, `variants` says what to decide otherwise, `deciding` decides (with the functions of
`rsa.policies` that a live run asks), `drawing` draws fewer candidates, `figures` sums up, and `replaying` does all of
it for folders. What was never generated cannot be replayed, and is refused in a line.
"""
