"""Where data sets come from, and data sets as training takes them."""
