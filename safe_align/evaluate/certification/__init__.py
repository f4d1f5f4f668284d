"""A certificate of safety: what it claims, rests on and says, and how anyone checks it."""
