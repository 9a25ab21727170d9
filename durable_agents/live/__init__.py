"""Websockets and server-sent events: parse the frames of browsers, and send them what changes in their threads."""
