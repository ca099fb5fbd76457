"""What every method returns: a Solution, its kernels, error bars and status."""
