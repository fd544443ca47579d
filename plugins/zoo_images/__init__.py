"""Image preprocessing: from a picture to the tensor that a tower takes."""
