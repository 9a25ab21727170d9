"""The REST API. Each view validates the request, authorises the caller, calls one lifecycle function and serialises the
result.
"""
