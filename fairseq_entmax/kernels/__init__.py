"""Fast row kernels behind the public functions; everything works, slower, without them."""
