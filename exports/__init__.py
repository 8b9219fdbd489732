"""Lists of the admin as files, made in the background."""
