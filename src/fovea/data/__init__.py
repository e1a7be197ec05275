"""What users have on disk, and what the demos make: readers, streams and generators."""
