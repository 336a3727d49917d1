"""Poisoning attacks: what malicious clients hold and send."""
