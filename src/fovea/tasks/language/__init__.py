"""Language models: text generated token by token, and what trains and measures them."""
