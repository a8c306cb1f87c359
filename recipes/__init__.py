"""How shipped weights were made, a folder for each. Not a part of the installed package."""
