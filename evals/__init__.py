"""Measurement: benchmarks, scorers, statistics, runner and report."""
