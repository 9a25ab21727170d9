"""Times in projects with other ideas of them."""
