"""Iterations and evaluations of chains by many methods, a module for each case."""
