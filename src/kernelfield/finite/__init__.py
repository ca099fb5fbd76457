"""Networks of finite width, trained by gradient descent."""
