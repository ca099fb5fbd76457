"""Infinite width on particles: a network of layers taken through training, step by step."""
