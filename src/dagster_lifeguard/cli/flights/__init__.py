"""The flights demo, and the processes that it runs."""
