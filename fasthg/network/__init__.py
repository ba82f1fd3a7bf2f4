"""The networks: architecture, variants by name, weights, and rewritings that keep their answers."""
