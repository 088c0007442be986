"""Several ranks: the exchanges between them, a watchdog that ends them together, and prefill that they share."""
