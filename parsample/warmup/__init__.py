"""Where chains begin, and the coordinates and step size in which they run."""
