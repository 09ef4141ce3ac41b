"""Back ends of the row mathematics, behind one contract; plain torch is one of them."""
