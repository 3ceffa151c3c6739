"""Measurements behind the numbers in the documentation. Nothing here is a test: machines differ and are noisy."""
