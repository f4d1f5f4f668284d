"""Talk to policies in the terminal."""
