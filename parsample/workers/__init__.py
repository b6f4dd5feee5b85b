"""Models that run outside of JAX, on workers: processes, threads, a cluster. Nothing of JAX is needed to run one."""
