"""Several processes as one: exchanges between ranks, a watchdog over them, prefill that they share."""
