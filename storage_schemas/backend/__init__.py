"""Where stores live and how their chunks are written: locations, credentials, arrays, the chunk contract."""
