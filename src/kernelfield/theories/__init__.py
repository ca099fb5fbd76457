"""Other ways to answer the same question: the approximations of the theory, and the paper's own solvers."""
