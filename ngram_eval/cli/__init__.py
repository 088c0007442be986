"""The command line, one module a command: flags into settings, a call, what is printed."""
