"""Changing what a finished model looks at, and giving it back as it was."""
