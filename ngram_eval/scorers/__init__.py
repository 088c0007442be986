"""Memories: neural statistics and n-gram counts into what the text costs, one room a family."""
