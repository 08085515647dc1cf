"""The report of a catalog: sums over its rows, charts of them, pages that open without a server."""
