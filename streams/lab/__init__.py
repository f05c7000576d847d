"""Measuring and showing: evaluation, replay, demo and benchmarks."""
