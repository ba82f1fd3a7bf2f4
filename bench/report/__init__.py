"""Tables, charts and pages made of result files."""
