"""Pure tensor parts that towers are put together from; no input, no output, no weights from anywhere."""
