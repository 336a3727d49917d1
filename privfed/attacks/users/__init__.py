"""Attacks on who a user is: vector, attributes, presence, links between uploads."""
