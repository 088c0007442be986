"""The one exception that means "what you gave me is wrong".

Command lines catch it, print its message to stderr without a traceback and exit with code 2. The message
names the file or flag, the value found, and the remedy. Anything else that escapes is a bug and keeps its traceback.
"""


class InputError(ValueError):
    """Bad input: names the file or flag, the offending value and the remedy."""
