"""What a run leaves behind: the trace, its groups and attributes, the summary, the verdict."""
