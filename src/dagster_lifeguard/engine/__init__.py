"""Decides which step may acquire slots: the verbs, the session of a process, store and rules."""
