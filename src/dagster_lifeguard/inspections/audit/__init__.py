"""Was any limit exceeded? Answered from what is written down, in one pass and bounded memory."""
