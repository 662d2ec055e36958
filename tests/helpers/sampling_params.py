"""Parameters of sampling, for hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

from engine.api import SamplingParams

params = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.3, 1.0, 2.0]),
    top_p=st.sampled_from([0.1, 0.5, 0.95, 1.0]),
    top_k=st.sampled_from([0, 1, 3, 40]),
    min_p=st.sampled_from([0.0, 0.02, 0.3]),
    seed=st.integers(0, 2**64 - 1),
)
"""Greedy and hot, with and without each filter."""
