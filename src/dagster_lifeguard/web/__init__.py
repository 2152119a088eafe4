"""The web page: pools, assets, runs and metrics, live as HTML and as JSON."""
