"""The command line, thin: it reads options, calls the front doors and shows what they return."""
