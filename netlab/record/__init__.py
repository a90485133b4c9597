"""What was observed, as values and as bytes: events, headers, recordings, pcapng."""
