"""How fast training is, compared with a plain loop and the machine's ceiling."""
