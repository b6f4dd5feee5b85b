"""The front doors, and what carries a run through: settings, checks, segments, where draws go."""
