"""Neural sources: models of any kind that give each token's probability."""
