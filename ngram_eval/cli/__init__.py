"""The command line, one module per command: turns flags into settings, makes a call, and prints the result."""
