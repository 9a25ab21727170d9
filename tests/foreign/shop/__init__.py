"""A shop with organisations, built from README and docs alone, and the how-tos as tests against its processes.

    python -m tests.foreign.shop dist/*.whl            # PostgreSQL and Redis where they answer, else SQLite
    python -m tests.foreign.shop dist/*.whl --sqlite --python 3.13 -k approvals

`project` is the Django project as its users have it: nothing in it knows of the tests. It has UUIDs as users' primary
keys, ATOMIC_REQUESTS, LoginRequiredMiddleware, a strict Content-Security-Policy, manifest static files, and German
pages. The modules in `howto` have the names of the pages in docs/howto.
"""
