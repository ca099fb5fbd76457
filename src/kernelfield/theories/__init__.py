"""Other ways to answer the same question: the approximations of the theory, and the paper's own solvers.

Each is one file and one settings object, passed as `method=` to `kernelfield.solve`.
"""
