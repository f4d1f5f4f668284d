"""Models behind OpenAI-compatible servers: a client, what it has paid for, and a judge of pairs of answers."""
