"""MetaMF: what its server keeps and generates, and what its devices compute."""
