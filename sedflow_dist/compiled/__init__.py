"""Functions in C++ for what PyTorch's operators cannot do without going through memory between any two of them.

`library` finds them as they were built for this processor; where they were not, callers have operators that do the same.
"""
