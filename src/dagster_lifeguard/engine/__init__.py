"""What decides who may go in: verbs, the session of a process, the store, the rules."""
