"""JAX networks, one file a model family, each with ``build(config, info, dropout) -> harness.Network``."""
