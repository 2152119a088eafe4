"""The engine's memory: one contract, three stores."""
