"""The store in the memory of one process: for tests, scripts and simulations."""
