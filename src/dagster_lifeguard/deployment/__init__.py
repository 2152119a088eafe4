"""Where limits live and steps wait: this instance, or the GraphQL endpoint of another."""
