"""The rows of the contract that do not keep it, each with its reason. Keys are (method, sampler, target)."""

Row = tuple[str, str, str]

KNOWN_NOT_CONVERGING: dict[Row, str] = {}

# Rows that claim to have converged and differ from the loop, in states or in decisions. Meant to stay empty.
KNOWN_OVERCLAIMING: dict[Row, str] = {}
