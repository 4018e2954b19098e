"""Records, axes, constants, errors, random streams: what every room may import."""
