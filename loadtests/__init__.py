"""Black-box load tests over HTTP; they import nothing of the product."""
