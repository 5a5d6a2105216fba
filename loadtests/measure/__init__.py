"""From finished requests to figures: records, histograms, summaries, the server's own counts."""
