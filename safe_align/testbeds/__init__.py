"""Worlds whose truth is known exactly, to hold estimates and certificates against it."""
