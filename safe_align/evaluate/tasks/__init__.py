"""BIG-bench's JSON tasks: read, asked, and scored."""
