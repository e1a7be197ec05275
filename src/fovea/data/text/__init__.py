"""Text: documents from the files that people have, tokens, token files of any size, and sequences to learn from."""
