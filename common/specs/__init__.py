"""From a YAML file to a validated spec, and to the networks that it asks for."""
