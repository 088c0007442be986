"""The method: what is scored by which model and which memory, and how ranks share it. No flags, no terminal."""
