"""What collect-ops is compared with. Each peer is a script of its own that prints one JSON object."""
