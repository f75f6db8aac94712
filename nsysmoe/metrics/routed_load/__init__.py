"""What routing puts on experts and devices, and what that costs."""
