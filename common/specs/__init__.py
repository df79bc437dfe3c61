"""From a YAML file to a checked spec, and to the networks that it asks for."""
