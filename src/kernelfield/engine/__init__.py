"""Infinite width in linear time: Gaussian coordinates, bases of visited directions, the infinite matrix.

Nothing here knows an architecture. Read `points`, `basis`, `infinite_matrix` in this order; `visitors` is for new data,
and `slabs` does their products.
"""
