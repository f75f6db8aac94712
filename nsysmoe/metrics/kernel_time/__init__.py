"""Where time went: kernels, steps, waiting, causes."""
