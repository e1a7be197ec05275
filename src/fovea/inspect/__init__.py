"""Looking into networks: what modules saw and gave, and which pixels a result was made from."""

from fovea.inspect.capture import capture
from fovea.inspect.lam import Attribution, BlurPath, Region, diffusion_index, gini, gradient_magnitude, lam

__all__ = ["Attribution", "BlurPath", "Region", "capture", "diffusion_index", "gini", "gradient_magnitude", "lam"]
