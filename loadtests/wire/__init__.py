"""An HTTP/1.1 client that sends planned requests and says when what came of them."""
