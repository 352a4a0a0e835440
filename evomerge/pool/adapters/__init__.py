"""LoRA adapters as models of a pool."""
