"""Attention on GPUs, in Triton: one family of kernels over the spans of grid patterns and the lists of block patterns.

``tables`` turns a pattern into a few integers for each tile, ``tiling`` chooses the tiles, ``forward`` and ``backward``
hold the kernels that walk over them and ``launch`` calls these. ``tables``, ``tiling`` and ``backend`` can be imported
without Triton. Every kernel runs on the CPU in Triton's interpreter (``TRITON_INTERPRET=1``, set before Triton is
imported).
"""
