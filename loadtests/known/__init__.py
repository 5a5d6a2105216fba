"""A server whose delays are known, and the check that what is measured against it is true."""
