"""Servers that tests collect from."""
