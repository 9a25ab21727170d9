"""News on their way from workers to browsers, over real servers."""
