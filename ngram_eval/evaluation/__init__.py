"""The method: data, model, n-gram memory, and how ranks share the work. It knows no flags and no terminal."""
