"""N-gram memories: from neural statistics and n-gram counts to the values charged, one package per family."""
