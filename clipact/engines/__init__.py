"""What runs a model: an `Engine` takes frames and sentences as NumPy arrays and gives NumPy arrays."""
