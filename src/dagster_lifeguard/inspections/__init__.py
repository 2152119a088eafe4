"""What ``check``, ``doctor`` and ``audit`` look for."""
