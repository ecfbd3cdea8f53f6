"""The tables of README and of the pages, by subject: each of a function that makes it."""
