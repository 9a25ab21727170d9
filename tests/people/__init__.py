"""What people do, and what is known of who did it, on a running daphne."""
