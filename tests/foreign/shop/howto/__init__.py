"""The how-tos of docs/howto as tests, a module for each page."""
