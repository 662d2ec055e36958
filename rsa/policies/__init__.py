"""When to stop, whom to trust, what to choose: small pure functions over rounds, the same for a live run and a replay.

A policy is written NAME or NAME:NUMBER, alike for `--stop`, `--select` and `--parents`: `decided`, `beta:.95`,
`uniform`. `registry` finds it, ours or those of other packages. No policy looks at a clock: what it decides follows
from tokens and answers alone.
"""
