"""The benchmark suite: what a user gets by every default, beside what the same user would get elsewhere."""
