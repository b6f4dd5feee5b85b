"""The engine: fixed-point evaluation of recursions. It knows nothing of MCMC or diffusion."""
