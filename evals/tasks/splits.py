"""The split shared by the synthetic tasks: a problem belongs to `train` or `test` by the hash of its content."""

from hashlib import blake2b
from typing import Literal

Split = Literal["train", "test"]

BUCKETS = 10
"""Buckets that problems are hashed into, of which one is the test split: a model trained on `train` alone has never
seen a test problem."""


def split_of_key(key: str) -> Split:
    """The split of a problem whose canonical form is `key`: stable over runs, machines and Python versions."""
    digest = blake2b(key.encode(), digest_size=8).digest()
    return "test" if int.from_bytes(digest, "big") % BUCKETS == 0 else "train"
