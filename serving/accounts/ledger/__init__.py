"""The usage ledger: an entry for each admitted request, durable before its last byte leaves."""
