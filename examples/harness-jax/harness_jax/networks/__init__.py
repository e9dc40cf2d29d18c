"""JAX networks, one file per model family, each with ``build(config, info, dropout) -> harness.Network``."""
