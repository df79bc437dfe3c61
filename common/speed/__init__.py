"""How fast training is, beside the plain way and the machine's ceiling."""
