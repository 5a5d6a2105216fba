"""Accounts: who may call, how much, and what was used."""
