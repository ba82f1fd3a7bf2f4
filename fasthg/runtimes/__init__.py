"""What runs a network: one module for each library, all with the same `build(request) -> Prepared`."""
