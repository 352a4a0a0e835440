"""Tasks that lm-eval brings along, with small data, and a model that answers some of them."""
