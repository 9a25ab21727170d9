"""The chats of the documentation, each copied into a new project and used in a real browser."""
