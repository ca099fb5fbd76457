"""Elementwise functions, their derivatives, and their averages over Gaussian variables."""
