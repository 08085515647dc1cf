"""inspect: a table in; what it is, and which survey fits it or could be declared of it, out."""
