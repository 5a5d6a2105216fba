"""Limits on how much is used: requests, tokens and money, by account, key and model."""
