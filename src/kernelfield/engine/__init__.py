"""Infinite width on particles: Gaussian coordinates, leading directions, the tail, the infinite matrix.

Nothing here knows an architecture or a training rule. Read `points`, `directions`, `tail`, `wiring` and
`infinite_matrix` in this order; `series` has fields that are power series in gamma0.
"""
