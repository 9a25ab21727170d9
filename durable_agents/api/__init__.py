"""The REST API: views validate, authorise, call one lifecycle function and serialise."""
