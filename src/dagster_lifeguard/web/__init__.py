"""The web page: what the read side tells, as HTML and as JSON, kept up to date."""
