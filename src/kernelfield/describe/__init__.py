"""The question: problem, loss, network, training rule, and a run of them with a method."""
