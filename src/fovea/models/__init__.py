"""Networks, one file each, named after the paper's model. Their ``*_config`` modules need no torch."""
