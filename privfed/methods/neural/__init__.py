"""GMF, MLP and NeuMF, and the servers of methods built on them."""
