"""The AI SDK's endpoint and the event stream, through real HTTP against daphne."""
