"""Kept memories: texts in files, as small as the codec makes them, that every memory can begin with."""
