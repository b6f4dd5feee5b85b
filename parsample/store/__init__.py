"""A trace as a Zarr folder, and the lock that keeps two runs from one."""
