"""Settings that suit a model and a kind of problem, found by measuring: `rsa tune`.

`space` says what is tried: families of settings, which need generation of their own, and variants of each, which are
decided again on what was recorded (`evals.replay`). `recording` records families as ordinary evaluations, `halving`
says which go on to more problems, `choosing` chooses on one half of the problems, and `tuning` does all of it and
checks the choice on the other half. `profile`, `table`, `words` and `page` tell what came out.
"""
