"""Workers: processes with an engine each, on this machine or on others, that solve the problems of one evaluation.

The driver, where `evaluate` was called, owns the results folder and hands out problems. A worker solves them and sends
every finished candidate at once, so that what it has done outlives it: a problem whose worker is lost goes to another
one with its log, and goes on at the candidate where it stood. Workers write nothing that lasts, and need no file system
in common with the driver.

messages     what passes between them
serving      a worker: the same wherever it runs
driver       the driver's side
processes    the executor of workers that are processes of this machine, with `devices`: a GPU each
ray_cluster  the executor of workers that are actors of a Ray cluster
"""
