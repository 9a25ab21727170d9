"""Websockets and server-sent events: parse the frames that browsers send, and send browsers the changes of threads."""
