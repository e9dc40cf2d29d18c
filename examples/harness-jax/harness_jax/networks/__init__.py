"""JAX networks. Each model family has a module that defines ``build(config, info, dropout) -> harness.Network``."""
