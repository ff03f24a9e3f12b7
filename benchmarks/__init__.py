"""How fast the project computes, against straightforward loops that compute the same."""
