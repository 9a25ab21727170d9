"""Projects of others, built from README and docs alone, that run the installed wheel."""
